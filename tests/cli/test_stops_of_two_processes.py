"""Two processes end together, with the code of what ended them: none waits for one that has left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main
from msft.record.run_folder import RunFolder

pytestmark = pytest.mark.cpu("two processes need two cards: these are on the CPU")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


def two(place: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """As a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(place), *sys.path])
    return [
        subprocess.Popen(
            [sys.executable, "-m", "msft", *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": paths},
            cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def ended(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    try:
        said = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def test_a_signal_to_all_processes_is_told_by_its_own_number(place: Path) -> None:
    """Two SIGTERMs are no SIGPWR: schedulers go by the code."""
    config = make_job(place, "sft", ", max_epochs: 400", output="stopped")
    processes = two(place, "train", str(config))
    journal = RunFolder(place / "stopped").journal
    until = time.monotonic() + 100
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 2) and processes[0].poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143], said
    assert "SIGTERM: stopped" in said[0] and "--resume" in said[0]
    assert "stopped" not in said[1], "the first process speaks for all"


def test_what_ends_the_first_process_alone_is_not_buried(place: Path) -> None:
    """The others gave a traceback each, of a connection that was closed."""
    config = make_job(place, "sft", ", max_epochs: 1", output="taken")
    assert main(["train", str(config)]) == 0
    codes, said = ended(two(place, "train", str(config)))
    assert codes == [2, 1] and "already holds a run" in said[0]
    assert [line for line in said[1].splitlines() if not line.startswith("[W")] == [
        "msft: process 1 ends, because another process of this run ended; that one says why"
    ]


SCORER = """
calls = []

def fails(answers):
    calls.append(answers)
    if len(calls) > 2:
        raise ValueError("no more")
    return [0.5 for _ in answers]
"""


def test_a_scorer_that_fails_ends_all_processes(place: Path) -> None:
    """It is called in the first process only, and the others wait for what it says."""
    (place / "failing.py").write_text(SCORER)
    config = make_job(place, "sft", ", max_epochs: 2", output="failed")
    scorer = "datasets.copy.scorer={name: 'failing:fails', max_new_tokens: 2}"
    codes, said = ended(two(place, "train", str(config), "--set", scorer))
    assert codes == [2, 2], said
    assert "failing:fails" in said[0] and "no more" in said[0]
