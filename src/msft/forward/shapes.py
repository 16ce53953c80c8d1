"""A few fixed sizes of micro-batches, up to which they are filled, so that a GPU can replay what it has recorded.

Chosen from the lengths of the training examples before training starts; a pure function of those, of the batch size and
of the token budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msft.forward.planner import deal
from msft.forward.token_rows import Row

MOST = 4
"""Sizes at most: each takes seconds to record at the start."""
STEPS = 512
"""Drawn steps, from whose micro-batches the sizes are chosen."""
TOKENS, TARGETS = 128, 64
"""Sizes are multiples of these."""
SPARE = 1.1
"""Targets beyond the most that a drawn step has; a micro-batch with more takes a larger size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a filled micro-batch."""

    tokens: int
    targets: int
    rows: int
    longest: int
    """No row is longer, those that fill up included."""
    width: int = 1
    """Targets of each token that predicts."""

    def soft(self, width: int) -> Shape:
        """The same size where each token that predicts has so many soft targets."""
        return replace(self, targets=self.targets * width, width=width)

    def holds(self, rows: Sequence[Row]) -> bool:
        """Whether a micro-batch of these rows can be filled up to this size."""
        tokens = sum(map(len, rows))
        if tokens > self.tokens or any(len(one) > self.longest or one.width != self.width for one in rows):
            return False
        return sum(len(one.targets) for one in rows) <= self.targets and (
            len(rows) + -(-(self.tokens - tokens) // self.longest) <= self.rows
        )


def choose(lengths: Sequence[NDArray[np.int64]], batch_size: int, max_tokens: int, *, world: int = 1) -> list[Shape]:
    """The sizes, smallest first, that add the fewest tokens to the micro-batches of drawn steps.

    `lengths`: of each sub-dataset, [examples, 2], the tokens of each example's row and its targets. Half of the steps
    are drawn from all sub-datasets, half from some, as a search leaves some out. Every micro-batch has at most
    `max_tokens` tokens; so has the largest size, or those of the longest row. `world`: processes, each of which has a
    part of every step.
    """
    found = _drawn(lengths, batch_size, max_tokens, world)
    longest = int(max(part[:, 0].max() for part in lengths))
    wanted = np.array([_up(int(tokens), TOKENS) for tokens, _ in found])
    sizes = _fewest_added(wanted, MOST)
    shapes = []
    for size in sizes:
        inside = found[wanted <= size]
        targets = _up(int(SPARE * inside[:, 1].max()), TARGETS)
        rows = -(-batch_size // world) + -(-size // longest)  # those that fill up are at most as many as fill it all
        shapes.append(Shape(tokens=size, targets=min(targets, size), rows=rows, longest=longest))
    return shapes


def added(
    shapes: Sequence[Shape], lengths: Sequence[NDArray[np.int64]], batch_size: int, max_tokens: int, world: int = 1
) -> float:
    """Tokens that fill up, per token of the examples, over the drawn steps."""
    found = _drawn(lengths, batch_size, max_tokens, world)[:, 0]
    sizes = np.array([shape.tokens for shape in shapes])
    return float(sizes[np.searchsorted(sizes, found)].sum() / found.sum() - 1)


def _drawn(lengths: Sequence[NDArray[np.int64]], batch_size: int, max_tokens: int, world: int) -> NDArray[np.int64]:
    """[micro-batches, 2] tokens and targets of drawn steps."""
    random = np.random.default_rng(0)
    found = []
    for step in range(STEPS):
        some = len(lengths) if step % 2 else int(random.integers(1, len(lengths) + 1))
        pool = np.concatenate([lengths[part] for part in random.permutation(len(lengths))[:some]])
        batch = pool[random.integers(0, len(pool), batch_size)]
        hands = deal(batch[:, 0].tolist(), max_tokens, world, flat=True)
        found += [batch[places].sum(0) for hand in hands for places in hand if places]
    return np.array(found, np.int64)


def _fewest_added(wanted: NDArray[np.int64], most: int) -> list[int]:
    """At most `most` of the wanted sizes, the largest included, so that the sum over all of their next is least."""
    sizes, counts = np.unique(wanted, return_counts=True)
    count = len(sizes)
    below = np.concatenate([[0], np.cumsum(counts)])
    cost = np.full((most + 1, count + 1), np.inf)
    cost[:, 0] = 0
    begins = np.zeros((most + 1, count + 1), np.int64)
    for used in range(1, most + 1):
        for end in range(1, count + 1):
            # The last size serves all wanted ones from `first` to `end`.
            costs = cost[used - 1, :end] + sizes[end - 1] * (below[end] - below[:end])
            begins[used, end] = int(np.argmin(costs))
            cost[used, end] = costs[begins[used, end]]
    chosen, end, used = [], count, most
    while end:
        chosen.append(int(sizes[end - 1]))
        end, used = int(begins[used, end]), used - 1
    return chosen[::-1]


def _up(number: int, step: int) -> int:
    return max(step, -(-number // step) * step)
