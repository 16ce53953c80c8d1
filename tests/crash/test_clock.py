"""No second of a run is lost or told twice, however often it is stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_runs import Notes, config_of, train, unsynced

from msft.core.errors import Stopped
from msft.engine.progress import ScoreInfo, StepInfo
from msft.record.run_folder import RunFolder
from msft.report.seconds import Seconds

LEEWAY = 0.1
"""Share of the time that may pass before and after a run measures it, on a machine that does other work too."""


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced():
        yield


def total(folder: RunFolder) -> float:
    return sum(Seconds(entry["seconds"]).total for entry in folder.read_timings())


def test_every_sitting_tells_all_of_its_time(tmp_path: Path) -> None:
    config = config_of("rollout", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    notes, steps = Notes(), 0

    def on_step(info: StepInfo | ScoreInfo) -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.002)
        if steps == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    notes.on_step = on_step
    began = time.perf_counter()
    with pytest.raises(Stopped):
        train(config, notes)
    passed = time.perf_counter() - began
    assert total(folder) == pytest.approx(passed, rel=LEEWAY, abs=0.05)
    stopped = folder.read_timings()
    assert stopped[0]["kind"] == "start" and stopped[-1]["kind"] == "stopped"

    began = time.perf_counter()
    summary = train(config, Notes(), resume=True)
    passed += time.perf_counter() - began
    entries = folder.read_timings()
    assert entries[: len(stopped)] == stopped
    assert entries[len(stopped)]["kind"] == "start"
    assert total(folder) == pytest.approx(passed, rel=LEEWAY, abs=0.1)
    # What was told before summary.json was written is in it.
    assert entries[-1]["kind"] == "page"
    known = total(folder) - Seconds(entries[-1]["seconds"]).total
    assert summary["seconds"]["total"] == pytest.approx(known)
    # The live view is slow in the first sitting, and that is said.
    assert summary["seconds"]["record"] > 14 * 0.002


def test_segments_that_are_made_again_are_told_apart(tmp_path: Path) -> None:
    """Otherwise the pace that `msft status` reads from the next segment would be that of several."""
    config = config_of("rollout", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")

    class Killed(BaseException):
        pass

    notes = Notes()

    def on_step(info: StepInfo | ScoreInfo) -> None:
        if notes.told == 2:
            raise Killed

    notes.on_step = on_step
    with pytest.raises(Killed):
        train(config, notes)
    known = len(folder.transcript().segments)
    again = Notes(on_step=lambda info: time.sleep(0.01))
    train(config, again, resume=True)
    assert any(number <= known for number in again.began), "nothing was made again"
    entries = folder.read_timings()
    starts = [entry for entry in entries if entry["kind"] == "start"]
    assert len(starts) == 2
    repeated = [entry for entry in entries if entry["kind"] == "recompute"]
    assert all(entry["number"] <= known and set(entry["seconds"]) == {"recompute"} for entry in repeated)
    assert sum(entry["seconds"]["recompute"] for entry in repeated) > 0.01
    numbers = [entry["number"] for entry in entries if entry["kind"] == "segment"]
    assert numbers == list(range(1, len(folder.transcript().segments) + 1))
    assert json.loads(folder.summary.read_text())["seconds"]["recompute"] > 0.01
