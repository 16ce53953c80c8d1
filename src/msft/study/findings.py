"""Findings of a study: figures, tables and sentences, written as a page, as JSON and as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msft.core.errors import RunError, complaint
from msft.report.html import Section, document, plot, soft, table, text
from msft.report.plots import Figure
from msft.report.sheet import sheet
from msft.study.grid import StudyFolder
from msft.system import files

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers; percentages are numbers from 0 to 100."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "each row needs one cell per column"


@dataclass(frozen=True, kw_only=True)
class Plot:
    title: str
    figure: Figure
    caption: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """`said`: the findings in sentences. The first table is written as the CSV file."""

    title: str
    said: Sequence[str]
    plots: Sequence[Plot]
    tables: Sequence[Table]
    settings: Mapping[str, Cell] = field(default_factory=dict)

    def write(self, folder: StudyFolder) -> None:
        """Writes the page, and the numbers as JSON and CSV."""
        try:
            files.replace("findings", folder.findings, (json.dumps(self.as_json(), indent=1) + "\n").encode())
            files.replace(
                "findings", folder.findings_table, sheet([self.tables[0].columns, *self.tables[0].rows]).encode()
            )
            files.replace("page", folder.page, self.as_page().encode())
        except OSError as error:
            found = f"the findings cannot be written ({error.strerror})"
            raise RunError(complaint(found, "free disk space, or name another folder", file=folder.path)) from None

    def as_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "title": self.title,
            "said": list(self.said),
            "settings": dict(self.settings),
            "tables": [
                {"title": t.title, "columns": list(t.columns), "rows": [[_finite(cell) for cell in r] for r in t.rows]}
                for t in self.tables
            ],
            "figures": {plot.title: plot.figure for plot in self.plots},
        }

    def as_page(self) -> str:
        """One self-contained page."""
        intro = "".join(f"<p>{text(sentence)}</p>" for sentence in self.said)
        intro += soft(", ".join(f"{key}: {value}" for key, value in self.settings.items()))
        sections = [_drawn(number, p) for number, p in enumerate(self.plots)]
        sections += [_tabled(number, t) for number, t in enumerate(self.tables)]
        return document(self.title, intro, sections)


def shown(cell: Cell) -> str:
    """A cell as text: two decimals, three for numbers below 1."""
    if isinstance(cell, float):
        digits = 2 if abs(cell) >= 1 else 3
        return f"{cell:.{digits}f}".replace("-", "−") if math.isfinite(cell) else "–"
    return "–" if cell is None else str(cell)


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _drawn(number: int, drawn: Plot) -> Section:
    name = f"figure-{number}"
    content = plot(f"plot-{number}", drawn.title, drawn.caption)
    return Section(name=name, title=text(drawn.title), content=content, figures={f"plot-{number}": drawn.figure})


def _tabled(number: int, made: Table) -> Section:
    rows = [[shown(cell) for cell in row] for row in made.rows]
    content = table(made.columns, rows, average=False)
    return Section(name=f"table-{number}", title=text(made.title), content=content)
