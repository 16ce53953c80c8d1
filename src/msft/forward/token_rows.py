"""Examples as rows: one sequence each, or several with a common prefix as a trunk with branches (see batches.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msft.data.examples import Example


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences with a common prefix, laid out as one row."""

    ids: NDArray[np.int32]
    """[tokens]"""
    positions: NDArray[np.int64]
    """[tokens] the position of each token in its own sequence."""
    branch: NDArray[np.int64]
    """[tokens] 0 in the common prefix, k in the branch of sequence k."""
    before: NDArray[np.int64]
    """[targets] the index in this row of the token that predicts the target."""
    targets: NDArray[np.int32]
    """[targets]"""
    counts: tuple[int, ...]
    """Number of targets of each sequence."""
    width: int = 1
    """Number of targets, one after the other, of each token that predicts: several where they are soft."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def branches(self) -> bool:
        return bool(self.branch.any())

    @property
    def reach(self) -> int:
        """Tokens of its longest sequence."""
        return int(self.positions.max()) + 1


def row(group: Sequence[Example]) -> Row:
    """Lays out sequences as one row; their targets all come after the common prefix."""
    if len(group) == 1:
        (only,) = group
        at = np.flatnonzero(only.trained)
        here = np.arange(_read(only))
        return Row(only.ids[: len(here)], here, np.zeros_like(here), at - 1, only.ids[at], (len(at),))
    trunk = _common(group)
    ids, positions = [group[0].ids[:trunk]], [np.arange(trunk)]
    branch, before, targets = [np.zeros(trunk, np.int64)], [], []
    start = trunk
    for number, example in enumerate(group, 1):
        end = _read(example)
        own = end - trunk
        ids.append(example.ids[trunk:end])
        positions.append(np.arange(trunk, end))
        branch.append(np.full(own, number))
        at = np.flatnonzero(example.trained) - trunk
        # The first token of a branch is predicted by the last token of the common prefix.
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


def rows_of(
    groups: Sequence[Sequence[Example]], *, apart: bool, border: int | None = None
) -> tuple[list[Row], list[NDArray[np.int64]]]:
    """The rows of all groups, and for each the places of its sequences, counted through all groups.

    `apart`: every sequence is a row of its own. `border`: sequences of up to this many tokens share no row with longer
    ones of their group.
    """
    rows, places = [], []
    start = 0
    for group in groups:
        parts: dict[int, list[int]] = {}
        for at, example in enumerate(group):
            key = at if apart else int(border is not None and _read(example) > border)
            parts.setdefault(key, []).append(at)
        for part in parts.values():
            rows.append(row([group[at] for at in part]))
            places.append(start + np.array(part, np.int64))
        start += len(group)
    return rows, places


def sides_of(reaches: Sequence[int], border: int | None) -> list[bool] | None:
    """On which side of a border each row is, by the tokens of its longest sequence; None without a border."""
    return None if border is None else [reach > border for reach in reaches]


def row_size(example: Example) -> tuple[int, int]:
    """The tokens and the targets of an example as a row of its own."""
    return _read(example), example.targets


def _read(example: Example) -> int:
    """The number of tokens up to the last one that predicts a target; all if there is no target."""
    return len(example) - 1 - int(np.argmax(example.trained[::-1])) if example.targets else len(example)


def _common(group: Sequence[Example]) -> int:
    """The length of the common prefix, which contains no target."""
    most = min(int(np.argmax(example.trained)) if example.targets else len(example) for example in group)
    first = group[0].ids[:most]
    differs = [np.flatnonzero(example.ids[:most] != first) for example in group[1:]]
    return min([most, *(int(found[0]) for found in differs if len(found))])
