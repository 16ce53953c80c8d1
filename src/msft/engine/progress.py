"""Progress reported by the engine, for display only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msft.core.vocabulary import Brief, Outcome, Segment, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """An optimizer step was taken."""

    rollout: int
    step: int
    """Steps since the roll-out began, including this one."""
    stop: int
    """The step at which the segment ends."""
    loss: float
    learning_rate: float
    tokens: int
    """Real tokens of this step's global batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreInfo:
    """Scoring has progressed; all sub-datasets to be scored are scored together."""

    tasks: tuple[Task, ...]
    done: int
    """Items."""
    total: int
    """Items."""
    what: str = ""
    """What is scored, in words, where it is no split of the sub-datasets."""


class Watcher(Protocol):
    """Receives the events of a run, such as the terminal's display."""

    def begin(self, brief: Brief, method: str) -> None:
        """The base model is scored; the search begins."""

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None:
        """After `begin`: the run was resumed, and goes on after these journaled segments. No other event tells of them,
        unless one must run again. `finished`: nothing new is trained."""

    def segment(self, number: int, segment: Segment) -> None:
        """This segment is about to run."""

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        """A step was taken, or scoring has progressed."""

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """This segment is journaled."""

    def note(self, text: str) -> None:
        """A message for people."""
