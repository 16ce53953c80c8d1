"""Micro-batches as tensors."""

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
    """Sequences padded on the right, and where their targets are, row by row (row-major)."""

    ids: Tensor
    """[rows, longest] int64"""
    mask: Tensor | None
    """[rows, longest] int64, 1 on real tokens; None where nothing is padded."""
    before: Tensor
    """[targets] int64: flat position (in rows x longest) of the token before each target, whose output predicts it."""
    targets: Tensor
    """[targets] int64: the tokens to predict."""
    per_row: tuple[int, ...]
    """Number of targets of each row."""
    hits: bool = False
    """Whether to say of each target if it was the arg-max."""


class TokenScores(NamedTuple):
    """What the wrapped model returns for a micro-batch."""

    nll: Tensor
    """[targets] float32, negative log-likelihood in nats."""
    hits: Tensor | None
    """[targets] bool, where the micro-batch asks."""


def collate(examples: Sequence[Example], device: torch.device, *, hits: bool = False) -> MicroBatch:
    """The micro-batch of these sequences, one row each, in order."""
    longest = max(map(len, examples))
    ids = np.zeros((len(examples), longest), np.int64)
    mask = np.zeros_like(ids)
    trained = np.zeros(ids.shape, np.bool_)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = example.ids
        mask[row, : len(example)] = 1
        trained[row, : len(example)] = example.trained
    flat = np.flatnonzero(trained)
    return MicroBatch(
        ids=torch.from_numpy(ids).to(device),
        mask=None if mask.all() else torch.from_numpy(mask).to(device),
        before=torch.from_numpy(flat - 1).to(device),
        targets=torch.from_numpy(ids.reshape(-1)[flat]).to(device),
        per_row=tuple(trained.sum(axis=1).tolist()),
        hits=hits,
    )


def filler(device: torch.device) -> MicroBatch:
    """Something to run for a process that has nothing to do while the others do."""
    return collate([Example(ids=np.zeros(2, np.int32), trained=np.array([False, True]))], device)


def per_row(values: NDArray[Any], counts: Sequence[int]) -> NDArray[np.float64]:
    """[rows] the sum of each row's values, which lie row by row; 0 for a row without any."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(rows, weights=values, minlength=len(counts)).astype(np.float64)
