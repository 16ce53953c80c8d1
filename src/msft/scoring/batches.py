"""Micro-batches as tensors.

A row holds one sequence, or several that begin alike (the options of a choice): their common beginning once, then what
follows it in each. Every token sees the beginning and its own branch, at the positions that it would have alone, so
that the likelihoods are those of separate sequences at a fraction of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msft.data.examples import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows padded on the right, and where their targets are, row by row (row-major)."""

    ids: Tensor
    """[rows, longest] int64"""
    mask: Tensor | None
    """[rows, longest] int64, 1 on real tokens; with branches [rows, 1, longest, longest] bool, True where a token
    (third axis) sees another (fourth); None where nothing is padded."""
    positions: Tensor | None
    """[rows, longest] int64, with branches; None: 0, 1, 2, ..."""
    before: Tensor
    """[targets] int64: flat position (in rows x longest) of the token before each target, whose output predicts it."""
    targets: Tensor
    """[targets] int64: the tokens to predict."""
    counts: tuple[int, ...]
    """Number of targets of each sequence, in order."""
    hits: bool = False
    """Whether to say of each target if it was the arg-max."""


class TokenScores(NamedTuple):
    """What the wrapped model returns for a micro-batch."""

    nll: Tensor
    """[targets] float32, negative log-likelihood in nats."""
    hits: Tensor | None
    """[targets] bool, where the micro-batch asks."""


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences that begin alike, laid out as one row."""

    ids: NDArray[np.int32]
    """[tokens]"""
    positions: NDArray[np.int64]
    """[tokens] where each token stands in its own sequence."""
    branch: NDArray[np.int64]
    """[tokens] 0 in the common beginning, k in what follows it in sequence k."""
    before: NDArray[np.int64]
    """[targets] the token of this row whose output predicts the target."""
    targets: NDArray[np.int32]
    """[targets]"""
    counts: tuple[int, ...]
    """Number of targets of each sequence."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def branches(self) -> bool:
        return len(self.counts) > 1


def row(group: Sequence[Example]) -> Row:
    """Lays out sequences of which only what follows their common beginning is learned or scored."""
    if len(group) == 1:
        (only,) = group
        at = np.flatnonzero(only.trained)
        here = np.arange(len(only))
        return Row(only.ids, here, np.zeros_like(here), at - 1, only.ids[at], (len(at),))
    trunk = _common(group)
    ids, positions = [group[0].ids[:trunk]], [np.arange(trunk)]
    branch, before, targets = [np.zeros(trunk, np.int64)], [], []
    start = trunk
    for number, example in enumerate(group, 1):
        own = len(example) - trunk
        ids.append(example.ids[trunk:])
        positions.append(np.arange(trunk, len(example)))
        branch.append(np.full(own, number))
        at = np.flatnonzero(example.trained) - trunk
        # The first token of a branch is predicted by the end of the common beginning.
        before.append(np.where(at == 0, trunk - 1, start + at - 1))
        targets.append(example.ids[at + trunk])
        start += own
    return Row(
        np.concatenate(ids),
        np.concatenate(positions),
        np.concatenate(branch),
        np.concatenate(before),
        np.concatenate(targets),
        tuple(map(len, targets)),
    )


def _common(group: Sequence[Example]) -> int:
    """Tokens that all begin with and none of which is a target."""
    most = min(int(np.argmax(example.trained)) if example.targets else len(example) for example in group)
    first = group[0].ids[:most]
    differs = [np.flatnonzero(example.ids[:most] != first) for example in group[1:]]
    return min([most, *(int(found[0]) for found in differs if len(found))])


def collate(rows: Sequence[Row], device: torch.device, *, hits: bool = False) -> MicroBatch:
    """The micro-batch of these rows, in order."""
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), np.int64)
    real = np.zeros(ids.shape, np.bool_)
    for number, one in enumerate(rows):
        ids[number, : len(one)] = one.ids
        real[number, : len(one)] = True
    mask, positions = None, None
    if any(one.branches for one in rows):
        mask, positions = _branching(rows, longest)
    elif not real.all():
        mask = real.astype(np.int64)
    before = np.concatenate([one.before + number * longest for number, one in enumerate(rows)])
    return MicroBatch(
        ids=torch.from_numpy(ids).to(device),
        mask=None if mask is None else torch.from_numpy(mask).to(device),
        positions=None if positions is None else torch.from_numpy(positions).to(device),
        before=torch.from_numpy(before).to(device),
        targets=torch.from_numpy(np.concatenate([one.targets for one in rows]).astype(np.int64)).to(device),
        counts=tuple(count for one in rows for count in one.counts),
        hits=hits,
    )


def _branching(rows: Sequence[Row], longest: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Which token sees which, and where each stands."""
    branch = np.full((len(rows), longest), -1)
    positions = np.zeros_like(branch)
    for number, one in enumerate(rows):
        branch[number, : len(one)] = one.branch
        positions[number, : len(one)] = one.positions
    seeing, seen = branch[:, :, None], branch[:, None, :]
    sees = np.tri(longest, dtype=np.bool_) & ((seen == 0) | (seen == seeing))
    # Padding sees the first token, and nothing sees it: a row that sees nothing would be no number.
    sees[:, :, 0] |= seeing[:, :, 0] == -1
    return sees[:, None], positions


def filler(device: torch.device) -> MicroBatch:
    """Something to run for a process that has nothing to do while the others do."""
    return collate([row([Example(ids=np.zeros(2, np.int32), trained=np.array([False, True]))])], device)


def per_sequence(values: NDArray[Any], counts: Sequence[int]) -> NDArray[np.float64]:
    """[sequences] the sum of each sequence's values, which lie in order; 0 for one without any."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(owners, weights=values, minlength=len(counts)).astype(np.float64)
