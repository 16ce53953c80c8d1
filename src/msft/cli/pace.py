"""The speed of a roll-out and its estimated remaining time."""

from __future__ import annotations

from msft.core.vocabulary import Segment
from msft.engine.progress import StepInfo


class Pace:
    """Position of a roll-out in steps, and its speed."""

    def __init__(self) -> None:
        self.rollout = 0
        self.planned = 0
        """The step at which it is expected to end."""
        self.step = 0
        self.loss: float | None = None
        self._first = 0
        self._began = 0.0
        self._started: float | None = None
        """Start time of the first segment that reported a step; None until then."""

    def begin(self, segment: Segment, steps: int, now: float) -> None:
        """A segment of the roll-out begins; `steps`: the number of steps from its start to the end, 0 if unknown."""
        if segment.rollout != self.rollout or segment.start == 0:
            self.rollout, self.planned, self._started = segment.rollout, 0, None
        if segment.stop > self.planned:
            self.planned = max(segment.stop, segment.start + steps)
        self.step, self._began = segment.start, now
        if self._started is None:
            self._first = segment.start

    def advance(self, info: StepInfo) -> None:
        self.step, self.loss = info.step, info.loss
        if self._started is None:
            self._started = self._began

    def per_step(self, now: float) -> float | None:
        """Mean seconds per step so far, including scoring; None before the first step."""
        done = self.step - self._first
        return (now - self._started) / done if self._started is not None and done > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds left in the roll-out; None before the first step."""
        each = self.per_step(now)
        return None if each is None else each * (self.planned - self.step)
