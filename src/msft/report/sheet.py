"""CSV for spreadsheets; all CSV files are written here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from msft.report.words import clean

FORMULA = ("=", "+", "-", "@")
"""A spreadsheet runs a cell that begins with one of these; control characters before them are removed first."""


def sheet(rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """CSV: one line per row, no formulas; missing or non-finite values become empty cells."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def _cell(cell: str | int | float | None) -> str | int | float | None:
    if isinstance(cell, str):
        text = clean(cell)
        return f"'{text}" if text.startswith(FORMULA) else text
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
