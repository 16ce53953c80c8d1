"""What a comparison shows while it runs: the plan, warnings, a line a minute on the runs in progress, the time left."""

from __future__ import annotations

import io
import multiprocessing
from datetime import datetime
from pathlib import Path

import pytest
from job import make_job
from rich.console import Console

from msft.cli.main import main
from msft.cli.study_display import Forecast, StudyDisplay
from msft.config.reader import load
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.positions import BASE, Position, heard
from msft.study.runs import Progress, run_grid
from msft.study.worker import nothing

METHODS = {
    "msft": "method={name: msft, max_epochs: 1, eval_every: 0.5, budget: 1, smooth: 1}",
    "sft": "method={name: sft, max_epochs: 1, eval_every: 0.5}",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("shown"))


def grid_of(config: Path) -> Grid:
    variants = tuple(Variant(name=name, config=load(config, [override])) for name, override in METHODS.items())
    return Grid(kind="compare", variants=variants, seeds=(1, 2))


def ended(progress: Progress) -> str:
    return f"[{progress.done}/{progress.total}] {progress.variant}, seed {progress.seed}"


def shown_on(console: Console, clock: list[float], jobs: int = 1) -> StudyDisplay:
    nine = datetime(2026, 5, 1, 9).timestamp()
    return StudyDisplay(jobs, ended, console, lambda: clock[0], lambda: datetime.fromtimestamp(nine + clock[0]))


def over(display: StudyDisplay, variant: str, seed: int, done: int, seconds: float) -> None:
    display.moved(Position(variant=variant, seed=seed, ended=True))
    display.tell(Progress(done, 4, variant, seed, {}, None, seconds))


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_says_what_runs_and_how_long_it_takes(config: Path, tmp_path: Path) -> None:
    console, clock = Console(file=io.StringIO(), width=60), [0.0]
    with shown_on(console, clock, jobs=2) as display:
        display.begins(StudyFolder(tmp_path / "study"), grid_of(config))
        display.moved(Position(variant=BASE, seed=1))
        clock[0] = 61
        display.moved(Position(variant=BASE, seed=1, scored=(3, 24)))
        display.moved(Position(variant=BASE, seed=1, ended=True))
        for variant in ("msft", "sft"):
            display.moved(Position(variant=variant, seed=1))
        clock[0] = 90
        over(display, "msft", 1, 1, 61)
        display.moved(Position(variant="msft", seed=2, epoch=0.25, limit=1.0, loss=2.5))
        clock[0] = 121
        display.moved(Position(variant="sft", seed=1, epoch=0.5, limit=1.0, loss=1.5, scored=(1, 24)))
        display.moved(Position(variant="msft", seed=1, epoch=1.0))
    said = text(console).splitlines()
    assert said == [
        f"2026-05-01 09:00:00  msft compare: 2 methods x 2 seeds, 0 of 4 runs done, 2 at a time, into {tmp_path}/study",
        "2026-05-01 09:01:01  0 of 4 runs done; base model: scoring 3/24",
        "[1/4] msft, seed 1",
        # 61 s a run: one more of sft is left, those in progress have had half of it and nearly all.
        "2026-05-01 09:02:01  1 of 4 runs done, about 1 min 1 s left; msft, seed 2: epoch 0.25 of 1, loss 2.500; "
        "sft, seed 1: epoch 0.5 of 1, loss 1.500, scoring 1/24",
    ]


def test_a_terminal_shows_the_runs_in_progress(config: Path, tmp_path: Path) -> None:
    console, clock = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None), [0.0]
    with shown_on(console, clock) as display:
        display.begins(StudyFolder(tmp_path / "study"), grid_of(config))
        display.moved(Position(variant="msft", seed=1))
        clock[0] = 10
        over(display, "msft", 1, 1, 10)
        display.moved(Position(variant="sft", seed=1, epoch=0.5, limit=1.0, loss=1.5))
        clock[0] = 14
        table = Console(file=io.StringIO(), width=80)
        table.print(display)
    rows = [" ".join(line.split()) for line in text(table).splitlines()]
    assert rows[0] == "msft compare 1 of 4 runs done, about 26 s left"
    assert rows[1] == "in progress position for" and rows[3] == "sft, seed 1 epoch 0.5 of 1, loss 1.500 4.0 s"
    assert len(rows) == 4
    assert "[1/4] msft, seed 1" in text(console)


def test_each_of_several_base_models_is_shown(config: Path, tmp_path: Path) -> None:
    clock = [0.0]
    display = shown_on(Console(file=io.StringIO()), clock)
    display.begins(StudyFolder(tmp_path / "study"), grid_of(config))
    for base in ("one", "two"):
        display.moved(Position(variant=BASE, seed=1, base=base))
        clock[0] += 5
        table = Console(file=io.StringIO(), width=80)
        table.print(display)
        assert "base model    starting   5.0 s" in text(table)
        display.moved(Position(variant=BASE, seed=1, base=base, ended=True))
        display.moved(Position(variant=BASE, seed=1, base=base, scored=(24, 24)))  # read too late
        table = Console(file=io.StringIO(), width=80)
        table.print(display)
        assert "base model" not in text(table)


def test_the_time_left_is_that_of_runs_of_the_same_variant() -> None:
    now = [0.0]
    forecast = Forecast(lambda: now[0], jobs=1)
    forecast.total, forecast.open = 4, frozenset({("a", 1), ("a", 2), ("b", 1), ("b", 2)})
    assert forecast.left() is None
    forecast.ends(("a", 1), 100.0)
    assert forecast.left() == 300.0
    forecast.ends(("b", 1), 10.0)
    forecast.begins(("a", 2))
    now[0] = 30.0
    assert forecast.left() == 70 + 10
    forecast.jobs = 2
    assert forecast.left() == 70, "the longest run is not divided"
    forecast.ends(("b", 2), None)
    now[0] = 500.0
    assert forecast.left() == 0


def test_a_run_longer_than_those_of_other_variants_takes_at_most_its_bound() -> None:
    now = [0.0]
    forecast = Forecast(lambda: now[0], jobs=1)
    forecast.total, forecast.open = 3, frozenset({("plain", 1), ("twice", 1), ("endless", 1)})
    for variant, most in (("plain", 600.0), ("twice", 1200.0), ("endless", None)):
        forecast.bound(variant, most)
    forecast.ends(("plain", 1), 100.0)
    forecast.begins(("twice", 1))
    now[0] = 90.0
    assert forecast.left() == 10 + 100, "as a run of plain"
    now[0] = 130.0
    assert forecast.left() == 70 + 100, "twice as long as a run of plain"
    now[0] = 210.0
    assert forecast.left() is None, "longer than anything lets expect"
    assert forecast.words == "1 of 3 runs done"
    forecast.ends(("twice", 1), 220.0)
    assert forecast.left() == 160


# Two worker processes import torch: half a minute on a busy machine.
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.campaign)])
def test_runs_tell_where_they_stand(config: Path, tmp_path: Path, jobs: int) -> None:
    told: list[Position] = []

    class Watch(StudyDisplay):
        def moved(self, position: Position) -> None:
            told.append(position)

    watch = Watch(jobs, ended, Console(file=io.StringIO()))
    assert run_grid(StudyFolder(tmp_path / "study"), grid_of(config), jobs=jobs, watch=watch, setup=nothing) == {}
    runs = {(variant, seed) for variant in METHODS for seed in (1, 2)}
    assert {(at.variant, at.seed) for at in told} == {(BASE, 1)} | runs
    assert {(at.variant, at.seed) for at in told if at.ended} == {(BASE, 1)} | runs
    assert any(at.scored and at.scored[1] > 0 for at in told if at.variant == BASE)
    moving = [at for at in told if at.variant != BASE and at.epoch is not None]
    assert {(at.variant, at.seed) for at in moving} == runs
    assert all(at.limit == 1.0 and 0 <= (at.epoch or 0) <= 1 for at in moving)


def test_what_processes_tell_is_heard_before_the_study_ends() -> None:
    told: list[Position] = []

    class Watch(StudyDisplay):
        def moved(self, position: Position) -> None:
            told.append(position)

    queue = multiprocessing.get_context("spawn").Queue()
    sent = [Position(variant="sft", seed=1, epoch=epoch / 10) for epoch in range(10)]
    with heard(queue, Watch(1, ended, Console(file=io.StringIO()))):
        for position in sent:
            queue.put(position)
    assert told == sent


def test_warnings_of_the_configuration_come_first(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", str(config), "--methods", "msft,sft", "--seeds", "1", "--set", "method.max_epochs=1"]
    assert main([*command, "--output", str(config.parent / "warned")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "msft compare: 2 methods x 1 seed, 0 of 2 runs done" in lines[0]
    few = [line for line in lines if line.startswith("warning: Too few validation items")]
    assert len(few) == 1 and lines.index(few[0]) < next(i for i, line in enumerate(lines) if line.startswith("[1/2]"))
