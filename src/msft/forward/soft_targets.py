"""Soft targets: what a teacher predicts at each trained token, beside the label (distillation).

The loss of a trained token is the cross-entropy with a distribution over a few tokens. A row then has several targets
at each token that predicts, each with a weight, and the loss and its gradient are computed as for any other targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import nn

from msft.data.examples import Example
from msft.forward.batches import filler
from msft.forward.runtime import Runtime, prepare, scoring
from msft.forward.token_rows import Row

AT_ONCE = 4096
"""Examples that a teacher reads at a time: their predictions are copied a few times, those of all are not."""


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """The target distributions of one example."""

    tokens: NDArray[np.int32]
    """[trained tokens, width]: the label first, then the teacher's most likely tokens."""
    odds: NDArray[np.float32]
    """[trained tokens, width]: their probabilities; each row sums to 1."""

    @property
    def width(self) -> int:
        return int(self.tokens.shape[1])

    def of(self, row: Row) -> Row:
        """The row of the example, with all tokens of the distributions as its targets."""
        counts = tuple(count * self.width for count in row.counts)
        return replace(
            row, before=row.before.repeat(self.width), targets=self.tokens.ravel(), counts=counts, width=self.width
        )


def soft_targets(
    model: nn.Module,
    examples: Sequence[Example],
    runtime: Runtime,
    *,
    share: float,
    top: int,
    progress: Callable[[int], None],
) -> list[SoftTargets]:
    """The distributions that a model, as it is, teaches: `share` times its own, plus 1 - `share` on the label.

    Only its `top` most likely tokens are kept; the probability of all others is added to the label. The same on every
    process. `progress` is called with the number of examples done so far.
    """
    found: list[SoftTargets] = []
    for first in range(0, len(examples), AT_ONCE):
        part = examples[first : first + AT_ONCE]
        predicted = _predicted(model, part, runtime, top, progress, before=first)
        labels = np.concatenate([example.ids[example.trained] for example in part])
        tokens, odds = mixed(labels, *predicted, share)
        ends = np.cumsum([0, *(example.targets for example in part)])
        found += [SoftTargets(tokens[start:end], odds[start:end]) for start, end in pairwise(ends)]
    return found


def _predicted(
    model: nn.Module,
    examples: Sequence[Example],
    runtime: Runtime,
    top: int,
    progress: Callable[[int], None],
    *,
    before: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The most likely tokens and their probabilities, [trained tokens of all examples, top] each."""
    prepared = prepare([[example] for example in examples], runtime)
    starts = np.cumsum([0, *(example.targets for example in examples)])
    found = np.zeros((2, int(starts[-1]), top))
    done = 0
    with scoring(model, runtime):
        for batch, owners, rows in prepared.batches:
            if batch is None:
                model(filler(runtime.device, layout=runtime.layout))
                continue
            tokens, odds = model(replace(batch, top=top))
            places = np.concatenate([np.arange(starts[owner], starts[owner + 1]) for owner in owners])
            count = tokens.shape[1]  # fewer than `top` where the vocabulary is smaller
            # At once, though it waits for a GPU: thousands of examples' predictions would take its memory.
            found[0, places, :count], found[1, places, :count] = tokens.cpu().numpy(), odds.cpu().numpy()
            done += rows * runtime.world
            progress(before + min(done, len(examples)))
    tokens, odds = runtime.total(found)
    return tokens.astype(np.int32), odds


def mixed(
    labels: NDArray[np.int32], predicted: NDArray[np.int32], odds: NDArray[np.float64], share: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Tokens and probabilities of the targets, [labels, 1 + top] each, from [labels, top] predictions.

    Column 0 is the label; a prediction of the label is added there. An empty column repeats the label with probability
    0, because another token's loss may be infinite, and 0 times infinity is NaN.
    """
    others = share * np.where(predicted == labels[:, None], 0.0, odds)
    label = 1 - others.sum(1, keepdims=True)
    tokens = np.concatenate([labels[:, None], np.where(others > 0, predicted, labels[:, None])], 1)
    return tokens, np.concatenate([label, others], 1).astype(np.float32)
