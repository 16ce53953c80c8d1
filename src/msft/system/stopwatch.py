"""Wall-clock time of a run by kind. Standard library only; each use costs about two microseconds.

All time since a stopwatch was made counts towards the innermost open kind, so that no time is counted twice and the sum
is the elapsed time. Code marks its kind with `spent`, which does nothing where no stopwatch is running (tests, a
background thread).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "start.imports", "start.data", "start.model", "start.proof", "start.folder",
    "train.compute", "train.optimizer", "train.input",
    "eval.base", "eval.ticks", "eval.rollback", "eval.test",
    "probe", "snapshot.capture", "snapshot.durable", "restore", "record", "export",
]  # fmt: skip
"""The kinds of work of a run, as `group` or `group.part`; docs/watching.md defines them."""

OTHER = "other"
"""Time outside all kinds."""


class Stopwatch:
    """Wall-clock by kind since it was made, or since it was last drained."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._open: list[str] = [OTHER]
        self._since = now()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """In this context, `spent` in this thread uses this stopwatch; afterwards it uses the previous one again."""
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """The time in this context counts towards `kind`, except the time in another kind inside it."""
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


# A thread begins with an empty context, so that a background thread adds no time.
_running: ContextVar[Stopwatch | None] = ContextVar("msft_stopwatch", default=None)


@contextmanager
def spent(kind: Kind) -> Iterator[None]:
    """The time in this context counts towards `kind` of the running stopwatch, if any. Also a decorator."""
    stopwatch = _running.get()
    if stopwatch is None:
        yield
        return
    with stopwatch.during(kind):
        yield
