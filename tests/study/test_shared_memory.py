"""Runs of a study at the same time, and processes on one machine, share one budget of memory for snapshots."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from job import make_job

from msft.config.reader import load
from msft.engine.parallel import Processes, of_this_machine
from msft.run.job import Job
from msft.run.open_store import snapshot_memory
from msft.run.session import score_base, train
from msft.snapshots.store import Store
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.positions import Silent
from msft.study.runs import run_grid
from msft.study.worker import Result

FREE = 1_000_000_000


@pytest.fixture(autouse=True)
def a_gigabyte_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=FREE, total=FREE))


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_runs_of_a_study_share(jobs: int, tmp_path: Path) -> None:
    """Through the whole of a run: what its store is given."""
    given: list[int] = []

    def store(folder: Path, *, memory_bytes: int, **_: Any) -> Store:
        given.append(memory_bytes)
        return Store(folder, memory_bytes=memory_bytes)

    config = load(make_job(tmp_path, "sft", ", max_epochs: 1"))
    job = Job.prepare(config)
    shared = score_base(job, Store(tmp_path / "base", memory_bytes=0))
    train(config, Silent(), job=job, shared=replace(shared, jobs=jobs), store=store)
    assert given == [int(0.4 * FREE / jobs)]


def test_a_single_run_has_the_whole_budget() -> None:
    assert snapshot_memory(Processes(), 1) == int(0.4 * FREE)


@pytest.mark.parametrize(
    ("local", "world", "share"), [("4", 8, 4), ("8", 8, 8), ("8", 1, 1), ("", 2, 2), ("0", 2, 2), (None, 3, 3)]
)
def test_processes_share_with_those_of_their_own_machine(local: str | None, world: int, share: int) -> None:
    assert of_this_machine(world, {} if local is None else {"LOCAL_WORLD_SIZE": local}) == share


def test_a_study_says_how_many_runs_there_are_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as it has jobs, but no more than it has to do."""
    config = load(make_job(tmp_path, "sft", ", max_epochs: 1"))
    grid = Grid(kind="compare", variants=(Variant(name="sft", config=config),), seeds=(1, 2))
    asked: list[tuple[Any, ...]] = []

    class Noted(Executor):
        """Runs nothing."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def submit(self, fn: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
            asked.append((fn.__name__, *arguments))
            future: Future[Any] = Future()
            future.set_result(Result(None if fn.__name__ == "work" else {}, None, 0.0))
            return future

    monkeypatch.setattr("msft.study.runs.ProcessPoolExecutor", Noted)
    for jobs, expected in ((2, 2), (9, 3)):  # two runs, and the scores of the base model
        asked.clear()
        run_grid(StudyFolder(tmp_path / f"study-{jobs}"), grid, jobs=jobs)
        assert [call[-1] for call in asked if call[0] == "work"] == [expected, expected]
