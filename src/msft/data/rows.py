"""Rows, and sequences of rows that need not be in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 20_000
"""Maximum number of rows that are kept in memory, together with their texts: a few tens of megabytes."""
READ_AHEAD = 2**18
"""Number of bytes read at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and its place in a file."""

    values: Mapping[str, Any]
    file: str
    line: int | None
    """1-based line, or None if the format has no lines."""
    number: int
    """1-based number within its source."""

    @property
    def place(self) -> str:
        """`file:line`, or `file row number`."""
        return f"{self.file} row {self.number}" if self.line is None else f"{self.file}:{self.line}"


class Rows(Sequence[Row]):
    """Rows in the order of their source, made when they are accessed."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        """The rows at these indices (from 0), in this order; fastest if they increase."""

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


class InFiles(Rows):
    """Rows that stay in their files, each of which is opened once; only the place of each row is in memory."""

    _starts: NDArray[np.int64]
    """[rows] position of each row in its file, in bytes."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [str(file) for file in files]
        self._handles: dict[int, BinaryIO] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def _handle(self, owner: int) -> BinaryIO:
        if owner not in self._handles:
            self._handles[owner] = Path(self._files[owner]).open("rb", buffering=READ_AHEAD)  # noqa: SIM115 - open as long as the rows
        return self._handles[owner]


class Listed(Rows):
    """Rows in memory."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        return (self._rows[index] for index in indices)


class Subset(Rows):
    """Some of the rows; `indices`: [rows] positions within `rows`."""

    def __init__(self, rows: Rows, indices: NDArray[np.int64]) -> None:
        # A subset of a subset refers to the rows themselves, so that each access is a single look-up.
        self._rows: Rows = rows._rows if isinstance(rows, Subset) else rows
        self._indices: NDArray[np.int64] = rows._indices[indices] if isinstance(rows, Subset) else indices

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        return self._rows.take(int(self._indices[index]) for index in indices)


@dataclass(frozen=True, slots=True)
class Survey:
    """The number of rows, and their columns."""

    rows: int
    filled: Mapping[str, int]
    """Column, in order of appearance -> number of rows in which it exists and is not null."""

    @property
    def columns(self) -> list[str]:
        return list(self.filled)

    @property
    def null(self) -> list[str]:
        """Columns that are null in every row."""
        return [column for column, count in self.filled.items() if not count]


def survey(rows: Iterable[Row]) -> Survey:
    """The survey of these rows, in one pass."""
    count = 0
    filled: dict[str, int] = {}
    for row in rows:
        count += 1
        for column, value in row.values.items():
            filled[column] = filled.get(column, 0) + (value is not None)
    return Survey(count, filled)
