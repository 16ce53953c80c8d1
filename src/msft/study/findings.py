"""What a study found: figures, tables and plain words, written as a page, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from plotly.offline import get_plotlyjs

from msft.core.errors import RunError, complaint
from msft.journal import write_durably
from msft.report.assets import SCRIPT, STYLE
from msft.report.figures import Figure
from msft.report.page import embedded, script_hash
from msft.report.words import clean

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers; percentages are numbers from 0 to 100, epochs are epochs."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "one cell for each column"


@dataclass(frozen=True, kw_only=True)
class Plot:
    title: str
    figure: Figure
    caption: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """`said`: the answer in sentences. The first table is the one that becomes the CSV file."""

    title: str
    said: Sequence[str]
    plots: Sequence[Plot]
    tables: Sequence[Table]
    settings: Mapping[str, Cell] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Writes findings.json, findings.csv and report.html, and returns the page's path."""
        page = folder / "report.html"
        try:
            write_durably(folder / "findings.json", (json.dumps(self.as_json(), indent=1) + "\n").encode())
            write_durably(folder / "findings.csv", _csv(self.tables[0]).encode())
            write_durably(page, self.as_page().encode())
        except OSError as error:
            found = f"the findings cannot be written ({error.strerror})"
            raise RunError(complaint(found, "make room, or name another folder", file=folder)) from None
        return page

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
        """One self-contained page, under the same content security policy as a run's."""
        library = get_plotlyjs()
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src {script_hash(library)} {script_hash(SCRIPT)}; "
            "base-uri 'none'; form-action 'none'"
        )
        figures = {f"plot{number}": plot.figure for number, plot in enumerate(self.plots)}
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(self.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{_text(self.title)}</h1>
{"".join(f"<p>{_text(sentence)}</p>" for sentence in self.said)}
<p class="soft">{_text(", ".join(f"{key}: {value}" for key, value in self.settings.items()))}</p>
{"".join(_drawn(f"plot{number}", plot) for number, plot in enumerate(self.plots))}
{"".join(map(_tabled, self.tables))}
</main>
<script type="application/json" id="figures">{embedded(figures)}</script>
<script>{library}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def shown(cell: Cell) -> str:
    """A cell for people: numbers to two decimals."""
    if isinstance(cell, float):
        return f"{cell:.2f}".replace("-", "−") if math.isfinite(cell) else "–"
    return "–" if cell is None else str(cell)


def _text(value: object) -> str:
    return escape(clean(str(value)))


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _drawn(identifier: str, plot: Plot) -> str:
    return (
        f'<section><h2>{_text(plot.title)}</h2><figure class="card"><div class="plot" id="{identifier}"></div>'
        f"<figcaption>{_text(plot.caption)}</figcaption></figure></section>"
    )


def _tabled(table: Table) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(shown(cell))}</td>' for cell in row)}</tr>" for row in table.rows)
    return (
        f'<section><h2>{_text(table.title)}</h2><div class="card wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if _finite(cell) is None else cell for cell in row] for row in table.rows])
    return out.getvalue()
