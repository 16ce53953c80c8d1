"""Rows, and sequences of them that need not lie in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 20_000
"""Rows that are kept in memory, and so are the texts made of them: a few tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it lies."""

    values: Mapping[str, Any]
    file: str
    line: int | None
    """1-based line, or None where the format has no lines."""
    number: int
    """1-based number within its source."""

    @property
    def place(self) -> str:
        """`file:line`, or `file row number`."""
        return f"{self.file} row {self.number}" if self.line is None else f"{self.file}:{self.line}"


class Rows(Sequence[Row]):
    """Rows in the order of their source, made when they are asked for."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        """The rows at these indices (from 0), in this order; fastest where they rise."""

    def __iter__(self) -> Iterator[Row]:
        return self.take(range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return Subset(self, np.arange(len(self))[index])
        return next(self.take([range(len(self))[index]]))


class Listed(Rows):
    """Rows that lie in memory."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        return (self._rows[index] for index in indices)


class Subset(Rows):
    """Some of the rows; `indices`: [rows] positions within `rows`."""

    def __init__(self, rows: Rows, indices: NDArray[np.int64]) -> None:
        # A subset of a subset is one of the rows themselves, so that nothing is looked up twice.
        self._rows: Rows = rows._rows if isinstance(rows, Subset) else rows
        self._indices: NDArray[np.int64] = rows._indices[indices] if isinstance(rows, Subset) else indices

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        return self._rows.take(int(self._indices[index]) for index in indices)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at the rows tells about their columns."""

    rows: int
    filled: Mapping[str, int]
    """Column, in order of appearance, to the number of rows in which it is there and not null."""

    @property
    def columns(self) -> list[str]:
        return list(self.filled)

    @property
    def null(self) -> list[str]:
        """Columns that are null in every row."""
        return [column for column, count in self.filled.items() if not count]


def survey(rows: Iterable[Row]) -> Survey:
    """One pass over the rows."""
    count = 0
    filled: dict[str, int] = {}
    for row in rows:
        count += 1
        for column, value in row.values.items():
            filled[column] = filled.get(column, 0) + (value is not None)
    return Survey(count, filled)
