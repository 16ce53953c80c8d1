"""What the engine returns for a segment: its outcome, or the error that its training diverged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TypeAlias

from msft.core.errors import complaint
from msft.core.vocabulary import Outcome, Segment, Snapshot, Task, Tokens
from msft.engine.progress import StepInfo
from msft.engine.step import BatchLoss
from msft.forward.runtime import NotFiniteError
from msft.scoring.scorers import TaskScores

Losses: TypeAlias = dict[Task, dict[int, float]]

OF_A_RUN = (
    "start a new run with max_grad_norm, or continue from the last snapshot with a lower rate: "
    "--resume --set training.learning_rate=... --allow-changed training.learning_rate"
)
"""What to do when training diverged; a study, whose commands cannot do this, replaces it."""


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


class Booked:
    """What a segment's steps have given: tokens, losses over its steps, and each trained example's latest loss."""

    def __init__(self, segment: Segment, tell: Callable[[StepInfo], None]) -> None:
        self._segment, self._tell = segment, tell
        self._per_step: list[float] = []
        self.tokens = 0
        self.losses = Losses()

    def add(
        self, step: int, batch: Sequence[tuple[Task, int]], rate: float, tokens: int, read: Callable[[], BatchLoss]
    ) -> None:
        """Waits for a step's loss. Raises NotFiniteError."""
        result = read()
        if not math.isfinite(result.loss):
            raise diverged(self._segment, step, batch)
        self.tokens += tokens
        self._per_step.append(result.loss)
        for (task, index), loss in zip(batch, result.examples.tolist(), strict=True):
            self.losses.setdefault(task, {})[index] = loss
        of, stop = self._segment.rollout, self._segment.stop
        self._tell(StepInfo(rollout=of, step=step + 1, stop=stop, loss=result.loss, learning_rate=rate, tokens=tokens))

    @property
    def mean(self) -> float:
        """The mean loss over steps."""
        return fmean(self._per_step)


def diverged(segment: Segment, step: int, batch: Sequence[tuple[Task, int]]) -> NotFiniteError:
    """The error for a step whose loss is NaN or infinite: which examples it had, and how to continue."""
    listed = ", ".join(f"{task}[{index}]" for task, index in batch)
    return NotFiniteError(
        complaint(
            f"the loss of step {step + 1} of roll-out {segment.rollout} is NaN or infinite; its examples: {listed}",
            f"check these examples; then {OF_A_RUN}",
            field="training.learning_rate",
        )
    )
