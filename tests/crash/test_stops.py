"""Signals, a loss that is no number, and what a resumed run may change."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from stored_runs import Notes, StoredEngine, config_of, content, run, train, unsynced

from msft.cli.main import main
from msft.config.reader import dump
from msft.core.errors import Diverged, RunError, Stopped
from msft.core.vocabulary import Outcome, Segment
from msft.engine.parallel import Processes
from msft.engine.progress import ScoreInfo, StepInfo
from msft.forward.runtime import NotFiniteError
from msft.record import run_folder as run_module
from msft.record.run_folder import RunFolder
from msft.run.signals import IF_FREE, StopRequest
from msft.system import files
from msft.system.files import Operation


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced():
        yield


def stopped_by(number: int, config: object, at_step: int) -> Notes:
    """A run that gets a signal while it takes that step, counted over the whole run."""
    notes, steps = Notes(), 0

    def on_step(info: StepInfo | ScoreInfo) -> None:
        nonlocal steps
        steps += 1
        if steps == at_step:
            os.kill(os.getpid(), number)

    notes.on_step = on_step
    with pytest.raises(Stopped) as caught:
        train(config, notes)  # type: ignore[arg-type]
    assert caught.value.signal == number
    assert steps == at_step, "it went on behind the step boundary"
    return notes


@pytest.fixture
def free() -> Iterator[None]:
    """Signals that the tests may have been started without, as under nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in IF_FREE}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("tick", signal.SIGINT), ("rollout", signal.SIGINT), ("tick", signal.SIGTERM), ("rollout", signal.SIGTERM),
        ("tick", signal.SIGHUP), ("tick", signal.SIGUSR1),
    ],
)  # fmt: skip
def test_a_signal_ends_the_run_at_the_next_step_with_everything_durable(tmp_path: Path, kind: str, number: int) -> None:
    config = config_of(kind, tmp_path / "run")
    run(config)
    wanted = content(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "whole")
    before = signal.getsignal(number)
    stopped_by(number, config, at_step=14)
    assert signal.getsignal(number) == before
    again: list[Operation] = []
    run(config, observer=again.append)
    assert not any(operation.name == "recover.run" for operation in again), "something was not durable"
    assert content(tmp_path / "run") == wanted


def test_a_signal_that_is_ignored_or_handled_by_another_stays_so() -> None:
    """As under nohup, and where a library uses SIGUSR1."""
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, lambda n, _: seen.append(n))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert (stop.signal, seen) == (0, [signal.SIGUSR1])
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def test_a_second_signal_is_not_waited_for() -> None:
    # What a shell starts in the background ignores Ctrl-C from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(Stopped):
        stop.check()


class Diverging(StoredEngine):
    """Its fifth segment's loss is no number, unless the learning rate is lower."""

    def run(self, segment: Segment, number: int) -> Outcome:
        if number == 5 and self.learning_rates[-1][1] > 0.005:
            raise NotFiniteError("the loss of step 12 is NaN or infinite")
        return super().run(segment, number)


def test_a_lower_learning_rate_from_here_on_is_journaled(tmp_path: Path) -> None:
    config, lower = config_of("rollout", tmp_path / "run"), config_of("rollout", tmp_path / "run", learning_rate=0.004)
    field = "training.learning_rate"
    with pytest.raises(NotFiniteError):
        run(config, engine=Diverging)
    with pytest.raises(Diverged, match=r"learning_rate was 0\.01, is now 0\.004.*--allow-changed training"):
        run(lower, engine=Diverging)
    again: list[Operation] = []
    run(lower, observer=again.append, allow=[field], engine=Diverging)
    assert not any(operation.name == "recover.run" for operation in again), "something was not durable"
    transcript = RunFolder(tmp_path / "run").transcript()
    assert transcript.changes == [
        {"since": 5, "path": ["config", field], "was": 0.01, "now": 0.004},
    ]
    assert transcript.header["config"][field] == 0.01
    assert transcript.current["config"][field] == 0.004
    # The old rate for the old segments, the new one for the new: the fake engine sums up rate times steps.
    rates = [0.01 if n < 5 else 0.004 for n in range(1, len(transcript.segments) + 1)]
    summed, at = {0: 0.0}, 0
    for at, ((segment, _), rate) in enumerate(zip(transcript.segments, rates, strict=True), 1):
        if segment.trains:
            summed[at] = summed[segment.parent] + rate * (segment.stop - segment.start)
    assert transcript.final is not None
    answer = transcript.final["answer"]
    assert float((tmp_path / "run" / "final" / "rate.txt").read_text()) == pytest.approx(summed[answer])
    # From now on the new rate is the run's, and a segment that must be run again keeps its own.
    wanted = content(tmp_path / "run")
    files.remove("somebody", tmp_path / "run" / "snapshots")
    run(lower, engine=Diverging)
    assert content(tmp_path / "run") == wanted
    with pytest.raises(Diverged, match=r"learning_rate was 0\.004, is now 0\.01"):
        run(config)


@pytest.mark.parametrize("field", ["data.seed", "training.batch_size", "brief.sizes", "nonsense"])
def test_what_decides_the_result_cannot_be_allowed(tmp_path: Path, field: str) -> None:
    config = config_of("tick", tmp_path / "run")
    run(config)
    wanted = content(tmp_path / "run")
    with pytest.raises(RunError, match=rf"--allow-changed: {field} affects the result"):
        run(config, allow=[field])
    with pytest.raises(Diverged, match=r"batch_size was 4, is now 5"):
        run(config_of("tick", tmp_path / "run", batch_size=5), allow=["environment"])
    assert content(tmp_path / "run") == wanted


def test_another_version_of_a_library_is_refused_until_it_is_allowed(tmp_path: Path) -> None:
    config = config_of("tick", tmp_path / "run")
    stopped_by(signal.SIGTERM, config, at_step=14)
    with patch.object(run_module, "_version", lambda name: "99.0"):
        with pytest.raises(Diverged, match=r"environment\.libraries\.torch was .*is now '99\.0'.*--allow-changed"):
            run(config)
        run(config, allow=["environment"])
        run(config)
    changed = {".".join(change["path"]) for change in RunFolder(tmp_path / "run").transcript().changes}
    assert "environment.libraries.torch" in changed
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["libraries"]["torch"] == "99.0"


def test_a_path_may_move_where_somebody_says_so(tmp_path: Path) -> None:
    config = config_of("tick", tmp_path / "run")
    stopped_by(signal.SIGTERM, config, at_step=14)
    moved = config.model_copy(update={"model": config.model.model_copy(update={"name_or_path": "elsewhere"})})
    with pytest.raises(Diverged, match=r"--allow-changed model\.name_or_path"):
        run(moved)
    run(moved, allow=["model.name_or_path"])


class Interrupted(Processes):
    """The first of two processes, which gets a signal while it waits for what the other says."""

    def __init__(self, number: int) -> None:
        self.rank, self.world, self.number = 0, 2, number

    def total(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        of_both = array.copy()
        os.kill(os.getpid(), self.number)
        return of_both


def test_a_signal_between_two_processes_words_is_told_at_their_next_ones() -> None:
    """Not at once, which would leave the other waiting; and it is not forgotten."""
    processes = Interrupted(signal.SIGTERM)
    with StopRequest() as stop:
        stop.check_together(processes)
        processes.number = 0  # none: it asks only whether the process is there
        with pytest.raises(Stopped) as stopped:
            stop.check_together(processes)
    assert stopped.value.signal == signal.SIGTERM


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_says_how_to_go_on(
    tmp_path: Path, number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(dump(config_of("tick", tmp_path / "run")))

    def stopped(*arguments: object, **keywords: object) -> None:
        raise Stopped(number)

    with patch("msft.cli.train.train", stopped):
        assert main(["train", str(config)]) == code
    assert f"Continue: msft train {config} --resume" in capsys.readouterr().err
