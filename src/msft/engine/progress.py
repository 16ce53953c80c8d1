"""What the engine tells about its progress, for people only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from msft.core.vocabulary import Brief, Outcome, Segment, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """An optimizer step was taken."""

    rollout: int
    step: int
    """Steps since the roll-out began, this one included."""
    stop: int
    """Where the segment ends."""
    loss: float
    learning_rate: float
    tokens: int
    """Real tokens of this step's global batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreInfo:
    """Scoring goes on; all sub-datasets asked for are scored together."""

    tasks: tuple[Task, ...]
    done: int
    """Items."""
    total: int
    """Items."""


class Watcher(Protocol):
    """Who watches a run: the terminal's display, or nobody."""

    def begin(self, brief: Brief, method: str) -> None:
        """The base model is scored; the search begins."""

    def segment(self, number: int, segment: Segment) -> None:
        """This segment is about to run."""

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        """A step was taken, or scoring went on."""

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """This segment is journaled."""

    def note(self, text: str) -> None:
        """Something that a person should know."""
