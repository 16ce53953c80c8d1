"""Collects the problems of a data set, so that one message lists all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msft.core.errors import DataError, complaint

MOST = 20
"""Maximum number of problems shown in one message."""
KEPT = 10_000
"""Maximum number of problems that are remembered; those beyond are only counted, as a file may have millions."""
ALIKE, SHOWN_ALIKE = 3, 5
"""More rows with the same problem than this are shown as one, with so many of their places."""
SHOWN_DROPPED = 5
"""Number of dropped rows that a note lists."""
MOST_DROPPED = 0.1
"""Maximum share of rows that `data.bad_rows: drop` leaves out; more is a mistake in the file or the configuration."""


@dataclass(frozen=True, slots=True)
class _Problem:
    found: str
    fix: str
    file: str | None
    line: int | None
    number: int | None
    """Of the row, where the file has no lines."""

    @property
    def alike(self) -> tuple[str, ...]:
        """What problems of several rows have in common."""
        return (self.found, self.fix, self.file or "")

    def said(self, field: str, others: Sequence[_Problem]) -> str:
        """`others`: the same problem in other rows."""
        found, own = self.found, f"row {self.number}" if self.number is not None and self.line is None else ""
        if others:
            places = ", ".join(str(each.number if each.line is None else each.line) for each in others[:SHOWN_ALIKE])
            more = f" and {len(others) - SHOWN_ALIKE} more" if len(others) > SHOWN_ALIKE else ""
            found = f"{found} (also in {'rows' if self.line is None else 'lines'} {places}{more})"
        return complaint(found, self.fix, file=self.file, line=self.line, field=f"{field}.{own}" if own else field)


class Complaints:
    """The problems of one data set: those of a file by their lines, and one that many rows have once.

    `drop`: a bad row is no problem, but one of the rows that are left out (`data.bad_rows: drop`).
    """

    def __init__(self, field: str, *, drop: bool = False) -> None:
        self.field = field
        self.drop = drop
        self.dropped: list[str] = []
        """Place and reason of every row that is left out."""
        self._found: list[_Problem] = []
        self._more = 0

    def add(self, found: str, fix: str, *, file: str | None = None, line: int | None = None) -> None:
        self._add(_Problem(found, fix, file, line, None))

    def row(self, found: str, fix: str, *, file: str, line: int | None, number: int | None = None) -> None:
        """Adds a problem of one row, or drops the row. `number`: of the row, where the file has no lines."""
        if self.drop:
            place = f"{file} row {number}" if line is None else f"{file}:{line}"
            self.dropped.append(f"{place} ({found})")
        else:
            self._add(_Problem(found, fix, file, line, number))

    def _add(self, problem: _Problem) -> None:
        if len(self._found) < KEPT:
            self._found.append(problem)
        else:
            self._more += 1

    def check(self) -> None:
        """Raise DataError if anything was added."""
        if not self._found:
            return
        files = {file: place for place, file in enumerate(dict.fromkeys(problem.file for problem in self._found))}
        ordered = sorted(self._found, key=lambda p: (files[p.file], p.line or p.number or 0))
        rows = defaultdict[tuple[str, ...], list[_Problem]](list)
        for problem in ordered:
            rows[problem.alike].append(problem)
        lines, shown = [], 0
        for problem in ordered:
            alike = rows[problem.alike]
            if len(alike) <= ALIKE:
                lines.append(problem.said(self.field, ()))
                shown += 1
            elif alike[0] is problem:
                lines.append(problem.said(self.field, alike[1:]))
                shown += len(alike)
            if len(lines) == MOST:
                break
        more = len(ordered) - shown + self._more
        raise DataError("\n".join([*lines, *([f"... and {more} more"] if more else [])]))


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
