"""Collects the problems of a data set, so that one message lists all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msft.core.errors import DataError, complaint

MOST = 20
"""Maximum number of problems shown in one message."""
SHOWN_DROPPED = 5
"""Number of dropped rows that a note lists."""
MOST_DROPPED = 0.1
"""Maximum share of rows that `data.bad_rows: drop` leaves out; more is a mistake in the file or the configuration."""


class Complaints:
    """The problems of one data set, in the order found; those beyond `MOST` are only counted.

    `drop`: a bad row is no problem, but one of the rows that are left out (`data.bad_rows: drop`).
    """

    def __init__(self, field: str, *, drop: bool = False) -> None:
        self.field = field
        self.drop = drop
        self.dropped: list[str] = []
        """Place and reason of every row that is left out."""
        self._lines: list[str] = []
        self._count = 0

    def add(self, found: str, mend: str, *, file: str | None = None, line: int | None = None, field: str = "") -> None:
        self._count += 1
        if len(self._lines) < MOST:
            place = f"{self.field}.{field}" if field else self.field
            self._lines.append(complaint(found, mend, file=file, line=line, field=place))

    def row(self, found: str, mend: str, *, file: str, line: int | None, number: int | None = None) -> None:
        """Adds a problem of one row, or drops the row. `number`: of the row, where the file has no lines."""
        if self.drop:
            place = f"{file} row {number}" if line is None else f"{file}:{line}"
            self.dropped.append(f"{place} ({found})")
        else:
            self.add(found, mend, file=file, line=line, field=f"row {number}" if line is None else "")

    def check(self) -> None:
        """Raise DataError if anything was added."""
        if self._lines:
            more = self._count - len(self._lines)
            raise DataError("\n".join([*self._lines, *([f"... and {more} more"] if more else [])]))


def note_of_dropped(dropped: Sequence[str], rows: int, field: str, what: str = "rows") -> list[str]:
    """The note about the rows that are left out of `rows`; empty if none are. Raises DataError if they are too many."""
    if not dropped:
        return []
    if len(dropped) > MOST_DROPPED * rows:
        found = f"{len(dropped)} of {rows} {what} are bad, and bad_rows: drop leaves out at most {MOST_DROPPED:.0%}: "
        raise DataError(complaint(found + _listed(dropped), "fix the file, or the format", field=field))
    return [f"{len(dropped)} of {rows} {what} were dropped: {_listed(dropped)}"]


def _listed(dropped: Sequence[str]) -> str:
    more = len(dropped) - SHOWN_DROPPED
    return "; ".join([*dropped[:SHOWN_DROPPED], *([f"and {more} more"] if more > 0 else [])])


def together(errors: Iterable[DataError]) -> DataError:
    """The errors of several data sets as one."""
    return DataError("\n".join(str(error) for error in errors))
