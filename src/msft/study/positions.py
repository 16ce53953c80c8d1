"""Where the runs in progress of a study stand: told by their processes, for display only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from threading import Thread
from typing import Protocol

from msft.core.clock import Clock
from msft.core.vocabulary import Brief, Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.run.job import Job
from msft.study.grid import Grid, StudyFolder

SECONDS = 1.0
"""Between two positions of one run."""
BASE = "base model"
"""The name of the scoring of a base model, where runs have their variant's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where one run stands."""

    variant: str
    seed: int
    base: str = ""
    """Which base model is scored, where the runs of a study have several."""
    epoch: float | None = None
    """None: it does not train yet."""
    limit: float | None = None
    """`max_epochs`."""
    loss: float | None = None
    scored: tuple[int, int] | None = None
    """Items that are scored, and all items; None: it trains."""
    ended: bool = False


class Watch(Protocol):
    """Receives what happens in a study beside the ends of its runs."""

    def begins(self, folder: StudyFolder, grid: Grid) -> None:
        """The study is about to run what is not finished."""

    def prepared(self, variant: str, job: Job) -> None:
        """The model and the data of a variant were found and checked. Variants with the same data come one after
        another; those that need another run come not at all."""

    def moved(self, position: Position) -> None:
        """A run has begun, moved on or ended, or the scoring of a base model has. May be called by another thread."""


class Unwatched:
    """A study that is not watched."""

    def begins(self, folder: StudyFolder, grid: Grid) -> None: ...

    def prepared(self, variant: str, job: Job) -> None: ...

    def moved(self, position: Position) -> None: ...


class Silent:
    """A watcher of a run that prints nothing: hundreds of runs would fill the terminal."""

    def begin(self, brief: Brief, method: str) -> None: ...

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None: ...

    def segment(self, number: int, segment: Segment) -> None: ...

    def progress(self, info: StepInfo | ScoreInfo) -> None: ...

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None: ...

    def note(self, text: str) -> None: ...


class Reporter(Silent):
    """Tells the position of a run, at most once a second."""

    def __init__(self, at: Position, tell: Callable[[Position], None]) -> None:
        self._at, self._tell = at, tell
        self._clock: Clock | None = None
        self._segment: Segment | None = None
        self._told = -SECONDS

    def begin(self, brief: Brief, method: str) -> None:
        self._clock, self._at = Clock.of(brief), replace(self._at, limit=brief.horizon)

    def segment(self, number: int, segment: Segment) -> None:
        self._segment, self._at = segment, replace(self._at, epoch=segment.epoch)

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        now = time.monotonic()
        if isinstance(info, ScoreInfo):
            self._at = replace(self._at, scored=(info.done, info.total))
        elif self._segment is not None and self._clock is not None:
            done = self._clock.epochs(self._segment.mixture, info.step - self._segment.start)
            self._at = replace(self._at, epoch=self._segment.epoch + done, loss=info.loss, scored=None)
        if now - self._told >= SECONDS:
            self._told = now
            self._tell(self._at)


@contextmanager
def heard(queue: Queue[Position | None], watch: Watch) -> Iterator[None]:
    """Passes on, in a thread, what the processes of a study put into the queue."""

    def listen() -> None:
        while (position := queue.get()) is not None:
            watch.moved(position)

    # If a process is killed while it writes, the rest of its message never comes: its end is not waited for.
    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.put(None)
        thread.join(timeout=SECONDS)
