"""The speed of a roll-out and of scoring, and their estimated remaining times."""

from __future__ import annotations

from msft.core.plain_words import many
from msft.core.vocabulary import Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.report.words import clean, duration


class Pace:
    """Position of a roll-out in steps, and its speed."""

    def __init__(self) -> None:
        self.rollout = 0
        self.planned = 0
        """The step at which it is expected to end."""
        self.step = 0
        self.loss: float | None = None
        self.learning_rate: float | None = None
        self._first = 0
        self._began = 0.0
        self._started: float | None = None
        """Start time of the first segment that reported a step; None until then."""
        self.tokens_per_second: float | None = None
        """Training tokens per second since the segment began, without its scoring; until its first step, those of the
        segment before."""
        self._tokens, self._segment_began = 0, 0.0

    def begin(self, segment: Segment, steps: int, now: float) -> None:
        """A segment of the roll-out begins; `steps`: the number of steps from its start to the end, 0 if unknown."""
        if segment.rollout != self.rollout or segment.start == 0:
            self.rollout, self.planned, self._started = segment.rollout, 0, None
        if segment.stop > self.planned:
            self.planned = max(segment.stop, segment.start + steps)
        self.step, self._began = segment.start, now
        if self._started is None:
            self._first = segment.start
        self.restart(now)

    def restart(self, now: float) -> None:
        """The speed is measured from here on: that in tokens, and before the first step that in steps."""
        self._tokens, self._segment_began = 0, now
        if self._started is None:
            self._began = now

    def advance(self, info: StepInfo, now: float) -> None:
        self.step, self.loss, self.learning_rate = info.step, info.loss, info.learning_rate
        self._tokens += info.tokens
        if now > self._segment_began:
            self.tokens_per_second = self._tokens / (now - self._segment_began)
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


class Scoring:
    """How far the scoring of some sub-datasets is, in words."""

    def __init__(self) -> None:
        self._info: ScoreInfo | None = None
        self._began, self._first = 0.0, 0

    def advance(self, info: ScoreInfo, now: float) -> bool:
        """More items were scored. Returns whether this begins another scoring."""
        last = self._info
        begins = (
            last is None
            or info.done <= last.done
            or (info.tasks, info.total, info.what) != (last.tasks, last.total, last.what)
        )
        if begins:
            self._began, self._first = now, info.done
        self._info = info
        return begins

    def words(self, now: float, what: str = "") -> str:
        """`what`: what is scored; else the sub-datasets are named. Empty before the first items."""
        info = self._info
        if info is None:
            return ""
        names = clean(info.tasks[0]) if len(info.tasks) == 1 else many(len(info.tasks), "sub-dataset")
        said = f"scoring {info.what or what or names}: {info.done}/{info.total}"
        done = info.done - self._first
        if done <= 0 or info.done >= info.total:
            return said
        return f"{said}, {duration((now - self._began) / done * (info.total - info.done))} left"
