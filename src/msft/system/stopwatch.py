"""Where the wall-clock of a run goes, by kind. Standard library only; costs about two microseconds a use.

Every moment since a stopwatch was made belongs to the innermost kind that is open, so that nothing is counted twice
and the sum is the time that passed. Code says what it is doing with `spent`, and need not know who measures: where
no stopwatch is running (tests, a background thread), it does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "start.imports", "start.data", "start.model", "start.folder",
    "train.compute", "train.optimizer", "train.input",
    "eval.base", "eval.ticks", "eval.rollback", "eval.test",
    "probe", "snapshot.capture", "snapshot.durable", "restore", "record", "export",
]  # fmt: skip
"""What a run can be doing, as `group` or `group.part`; docs/watching.md says what each holds."""

OTHER = "other"
"""What no kind names."""


class Stopwatch:
    """Wall-clock by kind since it was made, or since it was last drained."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._open: list[str] = [OTHER]
        self._since = now()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, `spent` of this thread is told to this stopwatch; one that ran before goes on afterwards."""
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """The time within is of this kind, but for what is of another one inside."""
        self._charge()
        self._open.append(kind)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def drain(self) -> dict[str, float]:
        """Seconds by kind since the last call."""
        self._charge()
        drained, self._seconds = self._seconds, {}
        return drained

    def _charge(self) -> None:
        now, kind = self._now(), self._open[-1]
        self._seconds[kind] = self._seconds.get(kind, 0.0) + now - self._since
        self._since = now


# A thread begins with an empty context: what it does beside the run is not of the run's wall-clock.
_running: ContextVar[Stopwatch | None] = ContextVar("msft_stopwatch", default=None)


@contextmanager
def spent(kind: Kind) -> Iterator[None]:
    """The wall-clock within is of this kind, for the stopwatch that is running, if any. Decorates functions too."""
    stopwatch = _running.get()
    if stopwatch is None:
        yield
        return
    with stopwatch.during(kind):
        yield
