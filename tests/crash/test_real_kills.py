"""SIGKILL on a real, tiny model, thousands of times: the resumed run ends in the same bytes.

The test process has imported everything and prepared the job; each attempt is a fork of it, so that a kill costs a
fraction of a second. Half of the kills come at a named point, half after a random time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
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
from msft.system import files
from msft.system.files import Operation

KILLS = int(os.environ.get("MSFT_KILLS", "2000"))
MOST_IN_A_ROW = 60
"""Kills of one run, before it may end."""


class Killer:
    """Ends this process, as SIGKILL does, at the n-th operation or stage."""

    def __init__(self, index: int) -> None:
        self.left = index

    def __call__(self, operation: Operation) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def attempt(config: Config, job: Job, killer: Killer | None, seconds: float | None) -> bool:
    """A fork that goes on with the run; whether it came to its end. `seconds`: when it is killed from outside."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            # The lock of progress bars is shared by all forks, and one that is killed may hold it.
            tqdm.set_lock(threading.RLock())
            resume = RunFolder(Path(config.output)).exists
            with patch.object(files, "observer", killer):
                session.train(config, Notes(), resume=resume, job=job)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert os.waitstatus_to_exitcode(status) == 0, "the run failed"
                return True
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}, f"the run failed with {code}"
    return code == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory where that is possible: a kill cannot tell whether a sync reached a disk."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    shutil.rmtree(folder)


@pytest.mark.campaign
@pytest.mark.parametrize(("durable", "method", "more"), [
    ("tick", "msft", ", max_epochs: 3, budget: 1, smooth: 1"),
    ("rollout", "msft", ", max_epochs: 3, budget: 1, smooth: 1"),
    ("tick", "ies", ", max_epochs: 7"),
])  # fmt: skip
def test_killed_thousands_of_times(
    place: Path, durable: str, method: str, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(make_job(place, method, more, output="run"), [f"snapshots.durable={durable}"])
    quiet()
    job = Job.prepare(config)
    draw = random.Random(f"{durable} {method}")
    began = time.monotonic()
    assert attempt(config, job, None, None)
    whole = time.monotonic() - began
    wanted = content(place / "run")
    kills = {"at a named point": 0, "at a random time": 0}
    runs = 0
    while sum(kills.values()) < KILLS / 3:
        shutil.rmtree(place / "run")
        runs += 1
        in_this_run, finished = 0, False
        while not finished:
            free = in_this_run >= MOST_IN_A_ROW
            named = draw.random() < 0.5
            killer = Killer(int(draw.expovariate(1 / 20))) if named and not free else None
            seconds = draw.uniform(0, whole * 0.4) if not named and not free else None
            finished = attempt(config, job, killer, seconds)
            if not finished:
                in_this_run += 1
                kills["at a named point" if named else "at a random time"] += 1
        assert content(place / "run") == wanted
    spent = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{method}, durable: {durable}: {kills} over {runs} runs in {spent:.0f} s, 0 differences", flush=True)
