"""What the engine returns for a segment: its outcome, or the error that training diverged in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msft.core.errors import complaint
from msft.core.vocabulary import Outcome, Segment, Snapshot, Task, Tokens
from msft.forward.runtime import NotFiniteError
from msft.scoring.scorers import TaskScores

Losses: TypeAlias = dict[Task, dict[int, float]]


def outcome(
    snapshot: Snapshot,
    scores: Mapping[Task, TaskScores],
    tokens: Tokens,
    *,
    items: Mapping[Task, tuple[float, ...]] | None = None,
    metrics: Mapping[Task, tuple[float, ...]] | None = None,
    lookahead: Mapping[Task, float] | None = None,
    losses: Losses | None = None,
    loss: Mapping[Task, float] | None = None,
    train_loss: float | None = None,
    size: int = 0,
) -> Outcome:
    """An outcome with the search scores and test metrics of what was scored; `size`: of the snapshot, in bytes."""
    return Outcome(
        snapshot=snapshot,
        scores={task: found.control for task, found in scores.items()},
        reports={task: found.report for task, found in scores.items()},
        items=items,
        metrics=metrics,
        lookahead=lookahead,
        losses=losses,
        loss=loss,
        train_loss=train_loss,
        tokens=tokens,
        bytes=size,
    )


def diverged(segment: Segment, step: int, batch: Sequence[tuple[Task, int]]) -> NotFiniteError:
    """The error for a step whose loss is NaN or infinite: which examples it had, and how to continue."""
    listed = ", ".join(f"{task}[{index}]" for task, index in batch)
    return NotFiniteError(
        complaint(
            f"the loss of step {step + 1} of roll-out {segment.rollout} is NaN or infinite; its examples: {listed}",
            "check these examples; then start a new run with max_grad_norm, or continue from the last snapshot with a "
            "lower rate: --resume --set training.learning_rate=... --allow-changed training.learning_rate",
            field="training.learning_rate",
        )
    )
