"""Groups sequences into micro-batches and distributes them over processes (design 3.3). No torch, no randomness.

A micro-batch costs its padded area (rows x longest, in tokens) plus a fixed overhead (kernel launches, casts of the
weights), taken as a sixteenth of the token budget. In the cheapest grouping, micro-batches are contiguous in order of
length, so that dynamic programming over the sorted sequences finds it exactly. Flat rows have no padding, and their
micro-batch costs its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIXED_PRICE = 1 / 16
"""The overhead of a micro-batch, as a share of the token budget."""


def micro_batches(
    lengths: Sequence[int], max_tokens: int, price: float = FIXED_PRICE, *, flat: bool = False
) -> list[list[int]]:
    """The micro-batches, as positions in `lengths`, each sorted by (length, position).

    Every micro-batch holds at most `max_tokens` tokens, padding included; a single longer row gets its own. `price`:
    the overhead of a micro-batch, as a share of `max_tokens`. `flat`: without padding.
    """
    if flat:
        return _even(lengths, max_tokens)
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")
    ordered = np.asarray(lengths, np.int64)[order]
    count = len(ordered)
    cost = np.zeros(count + 1)
    begins = np.zeros(count + 1, np.int64)
    for end in range(1, count + 1):
        longest = int(ordered[end - 1])
        first = end - max(1, min(end, max_tokens // max(longest, 1)))
        # Cost of the last micro-batch [begin, end) plus the cheapest grouping of the sequences before it.
        costs = cost[first:end] + longest * np.arange(end - first, 0, -1)
        best = int(np.argmin(costs))
        cost[end], begins[end] = costs[best] + price * max_tokens, first + best
    batches: list[list[int]] = []
    end = count
    while end > 0:
        batches.append(order[begins[end] : end].tolist())
        end = int(begins[end])
    return batches[::-1]


def _even(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """The fewest micro-batches within the budget, contiguous in order of length and about equal in tokens."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))

    def cut(budget: float) -> list[list[int]]:
        batches: list[list[int]] = []
        held = 0
        for place in order:
            if not batches or held + lengths[place] > budget:
                batches.append([])
                held = 0
            batches[-1].append(place)
            held += lengths[place]
        return batches

    fewest = cut(max_tokens)
    # The smallest budget with the same number of micro-batches makes them about equal.
    low, high = 0, max_tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut(middle)) <= len(fewest) else (middle + 1, high)
    return cut(high)


def deal(
    lengths: Sequence[int],
    max_tokens: int,
    world: int,
    price: float = FIXED_PRICE,
    *,
    flat: bool = False,
    sides: Sequence[bool] | None = None,
) -> list[list[list[int] | None]]:
    """The micro-batches of each of `world` processes: the same number for each, None where one has no work.

    Sequences are distributed in order of length, one to each process in turn, so that all processes get about the same
    work. `sides`: of each sequence; those of different sides never share a micro-batch.
    """
    if sides is not None:
        hands: list[list[list[int] | None]] = [[] for _ in range(world)]
        for which in (False, True):
            side = [place for place, mine in enumerate(sides) if mine is which]
            if side:
                dealt = deal([lengths[place] for place in side], max_tokens, world, price, flat=flat)
                for hand, more in zip(hands, dealt, strict=True):
                    hand += [batch and [side[at] for at in batch] for batch in more]
        return hands
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")
    hands = []
    for rank in range(world):
        share = order[rank::world].tolist()
        cuts = micro_batches([lengths[i] for i in share], max_tokens, price, flat=flat)
        hands.append([[share[place] for place in cut] for cut in cuts])
    most = max(map(len, hands))
    return [hand + [None] * (most - len(hand)) for hand in hands]
