"""Progress of a comparison or a study: a live table of the runs in progress, or the lines of a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from statistics import fmean
from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.text import Text

from msft.cli.job_costs import estimate
from msft.core.plain_words import many
from msft.record.run_folder import RunFolder
from msft.report.table import plain_table
from msft.report.words import clean, duration, epochs
from msft.run.job import Job
from msft.screen.console import new_console
from msft.screen.display import Minutes, live_on, local_time
from msft.study.grid import Grid, StudyFolder
from msft.study.positions import BASE, Position
from msft.study.runs import Progress

Run = tuple[str, int]
"""Variant and seed."""


class Forecast:
    """When the runs of a study will be done, from the times of those that are.

    Sets and dictionaries are replaced, not changed: another thread may draw them.
    """

    def __init__(self, now: Callable[[], float], jobs: int) -> None:
        self._now, self.jobs = now, jobs
        self.total = 0
        self.open: frozenset[Run] = frozenset()
        """The runs that have not ended."""
        self._taken: Mapping[str, tuple[float, ...]] = {}
        self._most: Mapping[str, float] = {}
        self._began: Mapping[Run, float] = {}

    def bound(self, variant: str, instances: float | None) -> None:
        """`instances`: the most that a run of the variant trains on, whatever the unit; None: it does not say."""
        if instances is not None:
            self._most = {**self._most, variant: instances}

    def begins(self, run: Run) -> None:
        self._began = {run: self._now(), **self._began}

    def ends(self, run: Run, seconds: float | None) -> None:
        """`seconds`: what the run took; None if that says nothing about others."""
        self.open -= {run}
        self._began = {other: began for other, began in self._began.items() if other != run}
        if seconds is not None:
            self._taken = {**self._taken, run[0]: (*self._taken.get(run[0], ()), seconds)}

    def running(self, run: Run) -> float:
        """Seconds since a run began in this process; 0 before."""
        return self._now() - self._began.get(run, self._now())

    def left(self) -> float | None:
        """Seconds until all runs are done; None if nothing says so: before a run is finished, or when the first run of
        a variant takes longer than anything lets expect."""
        if not self._taken:
            return None
        rest = [self._expected(run) - self.running(run) for run in self.open]
        if any(seconds < 0 and run[0] not in self._taken for run, seconds in zip(self.open, rest, strict=True)):
            return None
        # No less than the longest one takes, however many run at the same time.
        return max(sum(max(0.0, seconds) for seconds in rest) / self.jobs, *rest, 0.0)

    def _expected(self, run: Run) -> float:
        """Seconds that an open run takes: the mean of its variant's finished runs, else of all finished runs, unless it
        has taken longer: then, the most that it can take."""
        taken, most = self._taken, self._most
        own = taken.get(run[0])
        likely = fmean(own or [seconds for several in taken.values() for seconds in several])
        if own or self.running(run) < likely or run[0] not in most:
            return likely
        rates = [fmean(several) / most[variant] for variant, several in taken.items() if most.get(variant)]
        return fmean(rates) * most[run[0]] if rates else likely

    @property
    def words(self) -> str:
        done = f"{self.total - len(self.open)} of {many(self.total, 'run')} done"
        left = self.left() if self.open else None
        return done if left is None else f"{done}, about {duration(left)} left"


class StudyDisplay:
    """Shows the progress of a study; a context manager, and its `Watch`."""

    def __init__(
        self,
        jobs: int,
        ended: Callable[[Progress], str],
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = local_time,
    ) -> None:
        """`ended`: the line on a run that has ended. `now`, `clock`: the clocks of a test."""
        self.console = console or new_console(stderr=True, highlight=False)
        self.forecast = Forecast(now, jobs)
        self._minutes, self._ended = Minutes(now, clock), ended
        self._live: Live | None = None
        self._title = "preparing data and models"
        self._at: Mapping[tuple[str, int, str], Position] = {}
        self._over: set[tuple[str, int, str]] = set()
        self._said: set[str] = set()
        self._job: Job | None = None

    def __enter__(self) -> StudyDisplay:
        self._live = live_on(self.console, self, transient=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begins(self, folder: StudyFolder, grid: Grid) -> None:
        every = [(variant.name, seed) for seed in grid.seeds for variant in grid.variants]
        variants = {variant.name: variant for variant in grid.variants}
        self.forecast.total, self.forecast.open = len(every), frozenset(every)
        for name, seed in every:
            run = folder.run(variants[name], seed)
            if run.summary.exists():
                self.forecast.ends((name, seed), _seconds(run))
        self._title = f"msft {grid.kind}"
        at_once = f", {self.forecast.jobs} at a time" if self.forecast.jobs > 1 else ""
        what = "method" if grid.kind == "compare" else "variant"
        size = f"{many(len(variants), what)} x {many(len(grid.seeds), 'seed')}"
        self._line(self._minutes.dated(f"{self._title}: {size}, {self.forecast.words}{at_once}, into {folder.path}"))

    def prepared(self, variant: str, job: Job) -> None:
        """Shows what `msft check` warns of, each sentence once."""
        if self._job is None or self._job.data is not job.data:
            texts, whose = [*estimate(job).warnings, *job.notes], ""
        else:
            texts, whose = list(job.outlook.warnings), f"{variant}: "
        self._job = job
        bound = job.outlook.bound
        self.forecast.bound(variant, None if bound is None else bound.instances)
        for text in texts:
            if text not in self._said:
                self._said.add(text)
                self._line(clean(f"warning: {whose}{text}"), "yellow")

    def moved(self, position: Position) -> None:
        run, key = (position.variant, position.seed), (position.variant, position.seed, position.base)
        if position.ended:
            self._over.add(key)
            self._at = {other: at for other, at in self._at.items() if other != key}
            if position.variant == BASE:
                self.forecast.ends(run, None)
            return
        if key in self._over:
            return  # told by its process before it ended, and read after it
        self.forecast.begins(run)
        self._at = {**self._at, key: position}
        if self._live is None and self._minutes.due():
            running = "; ".join(f"{_name(at)}: {_words(at)}" for _, at in sorted(self._at.items()))
            self._line(self._minutes.dated(f"{self.forecast.words}; {running}"))

    def tell(self, progress: Progress) -> None:
        """A run has ended."""
        run = (progress.variant, progress.seed)
        self.forecast.ends(run, progress.seconds if progress.summary is not None else None)
        self._line(self._ended(progress))

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style), soft_wrap=self._live is None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.forecast.total:
            yield Text(self._title, style="dim")
            return
        table = plain_table()
        table.add_column("in progress", overflow="ellipsis", no_wrap=True)
        table.add_column("position")
        table.add_column("for", justify="right", no_wrap=True)
        for _, at in sorted(self._at.items()):
            running = duration(self.forecast.running((at.variant, at.seed)))
            table.add_row(*map(Text, (_name(at), _words(at), running)))
        yield Group(Text(f"{self._title}  {self.forecast.words}", style="bold"), table)


def _name(at: Position) -> str:
    return at.variant if at.variant == BASE else f"{clean(at.variant)}, seed {at.seed}"


def _words(at: Position) -> str:
    """Where a run stands."""
    parts = []
    if at.epoch is not None:
        limit = math.inf if at.limit is None else at.limit
        of = "" if math.isinf(limit) else f" of {epochs(limit)}"
        parts.append(f"epoch {epochs(min(at.epoch, limit))}{of}")
    if at.loss is not None:
        parts.append(f"loss {at.loss:.3f}")
    if at.scored is not None:
        parts.append(f"scoring {at.scored[0]}/{at.scored[1]}")
    return ", ".join(parts) or "starting"


def _seconds(run: RunFolder) -> float | None:
    """The seconds that a finished run took; None if its summary does not say."""
    try:
        return float(json.loads(run.summary.read_text(encoding="utf-8"))["seconds"]["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
