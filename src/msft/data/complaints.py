"""Collects the problems of a data set, so that one message lists all of them."""

from __future__ import annotations

from collections.abc import Iterable

from msft.core.errors import DataError, complaint

MOST = 20
"""Maximum number of problems shown in one message."""


class Complaints:
    """The problems of one data set, in the order found; those beyond `MOST` are only counted."""

    def __init__(self, field: str) -> None:
        self.field = field
        self._lines: list[str] = []
        self._count = 0

    def add(self, found: str, mend: str, *, file: str | None = None, line: int | None = None, field: str = "") -> None:
        self._count += 1
        if len(self._lines) < MOST:
            place = f"{self.field}.{field}" if field else self.field
            self._lines.append(complaint(found, mend, file=file, line=line, field=place))

    def check(self) -> None:
        """Raise DataError if anything was added."""
        if self._lines:
            more = self._count - len(self._lines)
            raise DataError("\n".join([*self._lines, *([f"... and {more} more"] if more else [])]))


def together(errors: Iterable[DataError]) -> DataError:
    """The errors of several data sets as one."""
    return DataError("\n".join(str(error) for error in errors))
