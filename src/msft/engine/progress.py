"""What the engine tells about its progress, for people only."""

from __future__ import annotations

from dataclasses import dataclass

from msft.core.vocabulary import Task


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
