"""Tables for spreadsheets, the only CSV that is written."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from msft.report.words import clean

FORMULA = ("=", "+", "-", "@")
"""What begins so, a spreadsheet runs; control characters before it are cleaned away."""


def sheet(rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """CSV: one line per row, no formulas; nothing in the place of what is missing or no number."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def _cell(cell: str | int | float | None) -> str | int | float | None:
    if isinstance(cell, str):
        text = clean(cell)
        return f"'{text}" if text.startswith(FORMULA) else text
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
