"""Tokenised examples: what the data room hands to scoring and engine. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msft.core.vocabulary import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One token sequence and the positions whose tokens are learned (or scored).

    `trained[j]` says that token j is a target, predicted from the tokens before it; `trained[0]` is always False.
    """

    ids: NDArray[np.int32]
    """[length]"""
    trained: NDArray[np.bool_]
    """[length]"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Number of trained tokens."""
        return int(self.trained.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One validation or test item: the sequences whose likelihood decides its score.

    `choice`: one sequence per option, of which number `answer` is right. `exact_match` and `loss`: one sequence.
    """

    options: tuple[Example, ...]
    answer: int = 0
    option_bytes: tuple[int, ...] = ()
    """UTF-8 bytes of each option's text, for `normalize: byte`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a sub-dataset is scored (DESIGN 3.11)."""

    name: Literal["choice", "exact_match", "loss"]
    normalize: Literal["none", "token", "byte"] = "none"
    """`choice` only: what an option's log-likelihood is divided by."""
    control: Literal["control", "report"] = "control"
    """Which of the two scores the search acts on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """One sub-dataset, ready to train on and to score."""

    task: Task
    train: Sequence[Example]
    validation: Sequence[Item]
    test: Sequence[Item]
    """Empty where there is no test split."""
    measure: Measure
    fingerprint: str
    """SHA-256 of every token, mask and answer, and of the measure."""
    notes: tuple[str, ...] = ()
    """What was cut off or left out, for people."""
