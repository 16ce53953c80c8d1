"""Snapshots are written by a thread beside the training: what a kill, a full disk or a stop meets there."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from schedules import AtLast, Overtaken
from stored_runs import At, Kill, Notes, config_of, content, operations, run, train, unsynced

from msft.core.errors import RunError, Stopped
from msft.record.journal import read
from msft.record.run_folder import RunFolder
from msft.system.files import Operation


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced():
        yield


def rollouts_before(folder: RunFolder) -> tuple[int, int]:
    """Segments journaled, and the first segment of the roll-out before the one that the last of them belongs to."""
    numbers = [segment.rollout for segment, _ in read(folder.journal, folder.sidecars).segments]
    return len(numbers), 1 + numbers.index(max(1, numbers[-1] - 1)) if numbers else 0


LONG = {"max_epochs": 5, "budget": 1, "eval_every": 0.25}
"""Roll-outs of four ticks, several of which end in a roll-back."""


@pytest.mark.parametrize(("kind", "every", "patience"), [("tick", 41, 0.1), ("rollout", 4, 0.5)])
def test_killed_while_the_writing_thread_is_behind(tmp_path: Path, kind: str, every: int, patience: float) -> None:
    """At operations of that thread, when training has gone on without it: at most one more roll-out is run again."""
    config = config_of(kind, tmp_path / "run", LONG)
    run(config)
    wanted = content(tmp_path / "run")
    overtaken = 0
    for index in range(0, 1000, every):
        shutil.rmtree(tmp_path / "run")
        killer = Overtaken(index, ahead=12, patience=patience)
        try:
            run(config, observer=killer)
            assert not killer.met
            break
        except Kill:
            overtaken += killer.overtaken >= killer.ahead
        folder = RunFolder(tmp_path / "run")
        done, first = rollouts_before(folder) if folder.exists else (0, 0)
        again: list[Operation] = []
        _, notes = run(config, observer=again.append)
        assert notes.said == [] and content(tmp_path / "run") == wanted, index
        recovered = sum(operation.name == "recover.run" for operation in again)
        assert recovered <= (0 if kind == "tick" else done - first + 1), (index, recovered, done, first)
    else:
        raise AssertionError("the thread does more than was looked at")
    # With `durable: tick` it waits for each snapshot, and only deletions are left behind.
    assert overtaken >= 3 or kind == "tick", "training never went on without the thread"


def in_thread(operation: Operation) -> bool:
    return threading.current_thread() is not threading.main_thread() and operation.kind != "stage"


class FullDisk:
    """Operation number `left` of the writing thread fails; the folders deleted behind it."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.deleted: list[str] = []

    def __call__(self, operation: Operation) -> None:
        if not in_thread(operation):
            return
        if self.left == 0:
            self.left = -1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.left < 0 and operation.name == "snapshot.doom":
            self.deleted.append(operation.path.name)
        self.left -= 1


def test_a_disk_that_fills_up_beside_the_training_pauses_the_run(tmp_path: Path) -> None:
    """The message is the same as ever, no thread is left behind, and nothing that is still needed was deleted."""
    config = config_of("rollout", tmp_path / "run", LONG)
    seen: list[Operation] = []
    run(config, observer=lambda operation: seen.append(operation) if in_thread(operation) else None)
    wanted = content(tmp_path / "run")
    for index in range(0, len(seen), 9):
        shutil.rmtree(tmp_path / "run")
        fails = FullDisk(index)
        with pytest.raises(RunError, match="the run is paused: No space left on device") as caught:
            run(config, observer=fails)
        assert str(tmp_path / "run" / "snapshots") in str(caught.value) and "--resume" in str(caught.value)
        assert fails.deleted == [], f"deleted after {seen[index]} had failed"
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("snapshots")]
        _, notes = run(config)
        assert notes.said == [] and content(tmp_path / "run") == wanted, seen[index]


def test_a_second_ctrl_c_does_not_wait_for_what_is_still_to_be_written(tmp_path: Path) -> None:
    """Only for the operation that the thread is at: behind it the folder is nobody's."""
    config = config_of("rollout", tmp_path / "run", LONG)
    run(config)
    wanted = content(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    begun, stages = threading.Event(), list[str]()

    def observer(operation: Operation) -> None:
        if in_thread(operation) and operation.name == "snapshot.draft":
            begun.set()
        elif not in_thread(operation):
            stages.append(operation.name)
            # The first of the second roll-out: what it began from is on its way.
            if operation.name == "loop.record" and stages.count("loop.record") == 6:
                assert begun.wait(20)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, observer=observer)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("snapshots")]
    run(config)
    assert content(tmp_path / "run") == wanted


def test_the_answer_is_durable_before_the_final_record(tmp_path: Path) -> None:
    """Even where the thread does nothing before somebody waits for it."""
    config = config_of("rollout", tmp_path / "run", {"max_epochs": 1, "budget": 1})  # its end is the answer
    with unsynced(AtLast):
        export = At([operation.name for operation in operations(config)].index("export"), Kill())
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(Kill):
            run(config, observer=export)
        transcript = RunFolder(tmp_path / "run").transcript()
        assert transcript.final is not None
        again: list[Operation] = []
        run(config, observer=again.append)
    assert not any(operation.name == "recover.run" for operation in again), "the answer was trained again"


def test_a_signal_waits_for_the_thread(tmp_path: Path) -> None:
    config = config_of("rollout", tmp_path / "run", LONG)
    notes, steps = Notes(), itertools.count(1)

    def on_step(info: object) -> None:
        if next(steps) == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    notes.on_step = on_step
    with unsynced(AtLast):
        with pytest.raises(Stopped):
            train(config, notes)
        again: list[Operation] = []
        run(config, observer=again.append)
    assert not any(operation.name == "recover.run" for operation in again), "something was not durable"
