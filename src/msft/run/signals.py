"""Ctrl-C and the signals of shells and schedulers end a run at its next step boundary, with everything durable; a
second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from msft.core.errors import Stopped
from msft.engine.parallel import Processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IF_FREE = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""A lost terminal, and what SLURM is told to send before the time is up; unless they are ignored (nohup), or somebody
else handles them."""


class StopRequest:
    """A context in which the first signal is only recorded; `check` raises Stopped for it.

    Outside the main thread, where Python allows no signal handlers, signals act as usual.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal received; 0 before."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            free = [number for number in IF_FREE if signal.getsignal(number) is signal.SIG_DFL]
            self._before = {number: signal.signal(number, self._note) for number in (*SIGNALS, *free)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Stopped if a signal was received."""
        if self.signal:
            raise Stopped(self.signal)

    def check_together(self, processes: Processes) -> None:
        """Raises Stopped in all processes, or in none: for the highest number that any had received before this call.

        A signal that comes while the processes speak to each other is told at the next call: raising it here would
        leave the others waiting.
        """
        received = np.zeros(processes.world)
        received[processes.rank] = self.signal
        if highest := int(processes.total(received).max()):
            raise Stopped(highest)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for other, handler in self._before.items():  # a second signal acts at once
            signal.signal(other, handler)
