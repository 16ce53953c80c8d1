"""SIGTERM and Ctrl-C end a run at its next step boundary, with everything durable; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from msft.core.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While it is entered, the first signal only leaves a note; `check` acts on it.

    Outside the main thread, where Python lets nobody handle signals, they do what they always do.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The signal that came; 0 before."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Stopped where a signal has come."""
        if self.signal:
            raise Stopped(self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for other, handler in self._before.items():  # the next one is not waited for
            signal.signal(other, handler)
