"""The grid runner: one run folder per variant and seed, in several processes; it can be interrupted and restarted."""

from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from msft.core.errors import RunError, complaint
from msft.record.run_folder import RunFolder
from msft.run.job import Job
from msft.study.clusters import Backend, elsewhere
from msft.study.derive import RULES
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.positions import BASE, Position, Unwatched, Watch, heard
from msft.study.worker import Result, begin, nothing, prepared, report_to, score, work
from msft.system.locks import lock

UNWATCHED = Unwatched()
HERE = Backend()


@dataclass(frozen=True)
class Progress:
    """A run ended: `done` of `total` runs have ended. `summary` is None if it failed."""

    done: int
    total: int
    variant: str
    seed: int
    summary: dict[str, Any] | None
    failure: str | None
    seconds: float


@dataclass(frozen=True)
class _Piece:
    """A run, or (`seed` None) the scoring of a base model; ready once all in `needs` are done."""

    name: str
    variant: Variant
    seed: int | None
    base: Path
    needs: frozenset[str]
    drawn_by: int = 0
    """Of the scoring of a base model: the seed of its data, where a seed draws its own."""


def run_grid(
    folder: StudyFolder,
    grid: Grid,
    *,
    jobs: int = 1,
    tell: Callable[[Progress], None] = lambda progress: None,
    watch: Watch = UNWATCHED,
    setup: Callable[[], None] = nothing,
    backend: Backend = HERE,
) -> dict[tuple[str, int], str]:
    """Run what is not finished yet, and return the failures: (variant, seed) to message.

    A finished run is kept, an interrupted run continues from its journal, a failed run is repeated. `setup`: a
    module-level function that every worker process calls first. `backend`: where these processes are. Raises a
    UserError, before anything is written, if a configuration, a model, a data set or the folder cannot be used.
    """
    grid = folder.continued(grid)
    folder.check(grid)
    threads = max(1, torch.get_num_threads() // jobs) if backend.where == "local" else backend.cpus
    watch.begins(folder, grid)
    for name, job in _jobs(grid, threads):
        watch.prepared(name, job)
    folder.path.mkdir(parents=True, exist_ok=True)
    with RunFolder(folder.path).owned():
        _wait_for_orphans(folder)
        return _Runner(folder, grid, folder.threads(threads), tell, watch, setup, backend).run(jobs)


def _wait_for_orphans(folder: StudyFolder) -> None:
    """Workers whose parent was killed end at once, but may hold the locks of their runs for another moment."""
    with folder.workers.open("a") as file:
        lock(file, folder.workers, fcntl.LOCK_EX)


class _Runner:
    """The runs that are waiting, and those in progress."""

    def __init__(
        self,
        folder: StudyFolder,
        grid: Grid,
        threads: int,
        tell: Callable[[Progress], None],
        watch: Watch,
        setup: Callable[[], None],
        backend: Backend,
    ) -> None:
        self.folder, self.grid, self.threads, self.setup = folder, grid, threads, setup
        self.backend = backend
        self.tell, self.watch = tell, watch
        self.total = len(grid.variants) * len(grid.seeds)
        self.jobs = 1
        self.failures = {
            (variant, int(seed)): message
            for variant, by_seed in folder.read_failures().items()
            for seed, message in by_seed.items()
        }
        """Of runs that are not finished, those of earlier sessions too, until they are tried again."""
        self.done: set[str] = set()
        self.waiting: list[_Piece] = list(self._tasks())
        self.finished = self.total - sum(task.seed is not None for task in self.waiting)

    def run(self, jobs: int) -> dict[tuple[str, int], str]:
        running: dict[Future[Result], _Piece] = {}
        self.jobs = min(jobs, max(1, len(self.waiting)))
        with _executor(self.jobs, self) as executor:
            self.folder.adopt(self.grid, self.threads)  # a cluster has accepted what is asked of it
            while self.waiting or running:
                while len(running) < self.jobs and (task := self._next()):
                    running[self._submit(executor, task)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._ended(running.pop(future), _result(future))
        return self.failures

    def _tasks(self) -> Iterator[_Piece]:
        """Seed by seed, so that the finished runs of an interrupted study compare all variants."""
        left = [
            (variant, seed)
            for seed in self.grid.seeds
            for variant in self.grid.variants
            if not self.folder.run(variant, seed).summary.exists()
        ]
        names = {_name(variant.name, seed) for variant, seed in left}
        bases: set[str] = set()
        for variant, seed in left:
            base = self.folder.base(self.grid.seeded(variant.config, seed), self.threads)
            if base.stem not in bases:
                bases.add(base.stem)
                yield _Piece(base.stem, variant, None, base, frozenset(), seed)
            after = {_name(variant.after, seed)} & names if variant.after else set()
            yield _Piece(_name(variant.name, seed), variant, seed, base, frozenset({base.stem, *after}))

    def _next(self) -> _Piece | None:
        """The first that is ready; None if all others wait for running ones."""
        for task in self.waiting:
            if task.needs <= self.done:
                self.waiting.remove(task)
                return task
        return None

    def _submit(self, executor: Executor, task: _Piece) -> Future[Result]:
        at = _position(task)
        self.watch.moved(at)
        if task.seed is None:
            config = self.grid.seeded(task.variant.config, task.drawn_by)
            return executor.submit(score, config, self.threads, task.base, at)
        run = self.folder.run(task.variant, task.seed)
        config = self.grid.seeded(task.variant.config, task.seed).model_copy(update={"output": str(run.path)})
        if task.variant.rule is not None:
            (other,) = (v for v in self.grid.variants if v.name == task.variant.after)
            if (other.name, task.seed) in self.failures:
                return _failed(f"not run: it depends on {other.name}, whose run of this seed failed")
            config = RULES[task.variant.rule](config, self.folder.run(other, task.seed))
        return executor.submit(work, config, self.threads, task.base, at, self.jobs)

    def _ended(self, task: _Piece, result: Result) -> None:
        self.done.add(task.name)
        self.watch.moved(replace(_position(task), ended=True))
        if task.seed is None:
            if result.failure is not None:
                raise RunError(result.failure)
            return
        if result.failure is not None:
            self.failures[task.variant.name, task.seed] = result.failure
            self.folder.write_failures(self.failures)
        elif self.failures.pop((task.variant.name, task.seed), None) is not None:
            self.folder.write_failures(self.failures)
        self.finished += 1
        self.tell(
            Progress(
                self.finished, self.total, task.variant.name, task.seed,
                result.summary, result.failure, result.seconds,
            )
        )  # fmt: skip


def _name(variant: str | None, seed: int) -> str:
    return f"{variant} {seed}"


def _position(task: _Piece) -> Position:
    """That of a run that begins."""
    if task.seed is None:
        return Position(variant=BASE, seed=task.drawn_by, base=task.name)
    return Position(variant=task.variant.name, seed=task.seed)


def _jobs(grid: Grid, threads: int) -> Iterator[tuple[str, Job]]:
    """Prepares the job of each model and data of the grid once, and yields it for each variant that needs no other run;
    where each seed draws its own data, for the first seed."""
    by_base: dict[Path, list[Variant]] = {}
    for variant in grid.variants:
        base = StudyFolder(Path()).base(grid.seeded(variant.config, grid.seeds[0]), threads)
        by_base.setdefault(base, []).append(variant)
    for variants in by_base.values():
        job = prepared(grid.seeded(variants[0].config, grid.seeds[0]), threads)
        for variant in variants:
            if variant.rule is None:
                yield variant.name, job.of(grid.seeded(variant.config, grid.seeds[0]))


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        found = "a process of the study died (killed, or out of memory)"
        raise RunError(complaint(found, "repeat the command, with fewer --jobs if memory is short")) from None


def _failed(message: str) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(Result(None, message, 0.0))
    return future


class _Here(Executor):
    """Runs each submitted call at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _executor(jobs: int, grid: _Runner) -> Iterator[Executor]:
    """`jobs` worker processes, each with its own GPU if there are enough; for one job, this process; or processes of a
    cluster."""
    if grid.backend.where != "local":
        with elsewhere(grid.backend, grid.folder.path, grid.folder.workers, grid.threads, jobs, grid.setup) as executor:
            yield executor
        return
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(grid.threads)
        report_to(grid.watch.moved)
        gc.freeze()  # looking for circles after each run takes a third of a second with what is there already
        try:
            yield _Here()
        finally:
            gc.unfreeze()
            report_to(UNWATCHED.moved)
            torch.set_num_threads(before)
        return
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    devices = _devices()
    queue = context.Queue() if devices else None
    for number in range(jobs if queue else 0):
        # A GPU and how many processes share it.
        queue.put((devices[number % len(devices)], -(-jobs // len(devices))))  # type: ignore[union-attr]
    positions = context.Queue()
    arguments = (receiver, queue, positions, grid.threads, grid.setup, grid.folder.workers)
    pool = ProcessPoolExecutor(jobs, context, initializer=begin, initargs=arguments)
    try:
        with heard(positions, grid.watch):
            yield pool
            pool.shutdown()
    finally:
        # Workers that are still running end when this end of the pipe closes; their journals are safe.
        sender.close()
        pool.shutdown(cancel_futures=True)


def _devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; counted without initialising CUDA."""
    count = torch.cuda.device_count()  # the variable may name what is not there
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
