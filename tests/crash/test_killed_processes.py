"""SIGKILL of one of two processes: the launch ends as a whole, and the resumed run ends in the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
import time
import traceback
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from job import make_job
from stored_runs import Notes, content
from tqdm import tqdm

from msft.cli.quiet import quiet
from msft.config.reader import load
from msft.config.schema import Config
from msft.record.run_folder import RunFolder
from msft.run import session
from msft.run.job import Job

KILLS = int(os.environ.get("MSFT_PROCESS_KILLS", "24"))
ADAPTER = {"r": 4, "target_modules": "all-linear"}
METHODS = {
    "msft": ", max_epochs: 3, budget: 1, smooth: 1",
    "dynamix": ", max_epochs: 2, update_every: 3, lookahead_batch: 4",
    "ies": ", max_epochs: 7",
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def process(config: Config, job: Job, rank: int, port: int) -> int:
    """A fork that is process `rank` of two; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        tqdm.set_lock(threading.RLock())
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        session.train(config, Notes(), resume=RunFolder(Path(config.output)).exists, job=job)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def attempt(config: Config, job: Job, seconds: float | None, victim: int) -> bool:
    """Both processes; whether they came to their end. After `seconds`, one of them is killed, and the other by what
    launched them, as torchrun does."""
    port = free_port()
    children = [process(config, job, rank, port) for rank in range(2)]
    end = time.monotonic() + (1e9 if seconds is None else seconds)
    left = set(children)
    codes: list[int] = []
    while left and time.monotonic() < end and not any(codes):
        for child in list(left):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                left.remove(child)
                codes.append(os.waitstatus_to_exitcode(status))
        time.sleep(0.01)
    if not left:
        assert codes == [0, 0], "the run failed"
        return True
    for child in (children[victim], children[1 - victim]):
        if child in left:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            time.sleep(0.02)
    assert not any(codes), "the run failed"
    return False


@pytest.mark.campaign
@pytest.mark.cpu("two processes need two cards: these are on the CPU")
@pytest.mark.parametrize("shard", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_one_of_two_processes_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, adapter: bool, shard: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    durable = "tick" if method == "ies" else "rollout"
    path = make_job(tmp_path, method, METHODS[method], output="run")
    if adapter:
        path.write_text(path.read_text() + f"peft: {{r: 4, target_modules: {ADAPTER['target_modules']}}}\n")
    config = load(
        path, [f"training.shard={str(shard).lower()}", "training.average=0.5", f"snapshots.durable={durable}"]
    )
    quiet()
    job = Job.prepare(config)
    began = time.monotonic()
    with patch.dict(os.environ):
        assert attempt(config, job, None, 0)
        whole = time.monotonic() - began
        wanted = content(tmp_path / "run")
        shutil.rmtree(tmp_path / "run")
        draw = random.Random(f"{method} {adapter} {shard}")
        kills = 0
        while kills < KILLS / (2 * 2 * len(METHODS)):
            if attempt(config, job, draw.uniform(0.2, 0.7) * whole, draw.randrange(2)):
                assert content(tmp_path / "run") == wanted
                shutil.rmtree(tmp_path / "run")
            else:
                kills += 1
        while not attempt(config, job, None, 0):
            pass
    assert content(tmp_path / "run") == wanted
    print(f"\n{method}, {adapter=}, {shard=}: {kills} kills, a run takes {whole:.1f} s")
