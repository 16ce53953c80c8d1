"""The page of a comparison: report.html of a study. It has no scripts and makes no network requests.

The figure is drawn here as SVG, without plotly, which would add five megabytes. The switches are checkboxes whose state
the style sheet uses: everything of method number i has the class `m{i}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from msft.report.assets import STYLE
from msft.report.html import skeleton, text
from msft.report.words import clean, difference, percent
from msft.study import forest, frontier_figure
from msft.study.compare_answer import lead
from msft.study.compare_words import (
    AGAINST,
    COSTS,
    HEADINGS,
    Comparison,
    Entry,
    against_cells,
    cells,
    columns,
    cost_cells,
    headline,
    interval_or_why,
    notes,
    sentence,
    with_reach,
    without_empty,
)
from msft.study.statistics import LEVEL

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MORE_STYLE = """
.scores.compare th:nth-child(n+2), .scores.compare td:nth-child(n+2) { text-align: right; white-space: nowrap; }
.scores.compare td:first-child { min-width: 7rem; text-align: left; white-space: normal; overflow-wrap: anywhere; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg line { stroke: var(--rule); } svg .zero { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .like { stroke: var(--ink); stroke-width: 1.5; } svg .these { stroke: var(--accent);
  stroke-width: 5; } svg circle { fill: var(--ink); } svg circle.seed { fill: none; stroke: var(--soft); }
.more { display: none; color: var(--soft); font-size: .78rem; font-weight: 400; }
main:has(#intervals:checked) .more { display: block; }
"""


def comparison_page(data: Comparison) -> str:
    """The page as text."""
    style = f"{STYLE}{MORE_STYLE}{frontier_figure.STYLE}{_switched(len(data['methods']))}"
    return skeleton(headline(data), f"<main>\n{_body(data)}\n</main>", policy=POLICY, style=style)


def _switched(methods: int) -> str:
    return "".join(f"main:has(#show-{i}:not(:checked)) .m{i} {{ display: none; }}\n" for i in range(methods))


def _switches(data: Comparison) -> str:
    """A checkbox per method that shows or hides its rows and columns."""
    chips = "".join(
        f'<label class="chip"><input type="checkbox" checked id="show-{i}">{text(row["method"])}</label>'
        for i, row in enumerate(data["methods"])
    )
    return f'<fieldset class="toggles"><legend>Methods</legend>{chips}</fieldset>'


def _marks(data: Comparison, rows: Sequence[Entry]) -> list[str]:
    """The class of each row's method."""
    numbers = {row["method"]: f"m{i}" for i, row in enumerate(data["methods"])}
    return [numbers[row["method"]] for row in rows]


def _heads(data: Comparison, rows: Sequence[Entry], before: Sequence[str]) -> str:
    """The head of a table with a column per method."""
    columns = zip(rows, _marks(data, rows), strict=True)
    names = "".join(f'<th class="{mark}">{text(row["method"])}</th>' for row, mark in columns)
    return "".join(f"<th>{name}</th>" for name in before) + names


def _body(data: Comparison) -> str:
    parts = [
        f"<h1>{text(headline(data))}</h1>",
        *(f'<p class="{"soft" if number else "lead"}">{text(line)}</p>' for number, line in enumerate(lead(data))),
        _switches(data),
        _section("Methods", _methods(data)),
    ]
    if data["against"]:
        name = clean(data["reference"])
        parts += [
            _section(f"The others against {name}", _against(data)),
            _section("Differences by sub-dataset", _by_task(data)),
        ]
    if (frontier := data.get("frontier")) and frontier["methods"]:
        parts.append(_section("Quality over compute", _frontier(data)))
    parts.append(_section("Cost", _rows(data, COSTS, cost_cells)))
    parts.append(_section(f"Scores by sub-dataset, {data['split']}, in %", _scores(data)))
    parts.append(_section("How to read this", "".join(f'<p class="soft">{text(line)}</p>' for line in notes(data))))
    return "\n".join(parts)


def _methods(data: Comparison) -> str:
    caption = (
        "Average: macro-average of the test metrics in %, with its interval over seeds. Worst: the lowest "
        "sub-dataset. Spread: standard deviation over sub-datasets. Gap: validation minus test score of the final "
        "model, in points (the optimism from choosing on validation). FLOPs include scoring and probes; scoring share "
        "is their share of the total. Disk: maximum held, relative to plain fine-tuning."
    )
    shown = slice(len(columns(data)))
    return _rows(data, HEADINGS[shown], lambda row: cells(row)[shown]) + f'<p class="soft">{caption}</p>'


def _rows(data: Comparison, headings: Sequence[str], row_of: Callable[[Entry], Sequence[str]]) -> str:
    return _table(headings, [row_of(row) for row in data["methods"]], _marks(data, data["methods"]))


def _frontier(data: Comparison) -> str:
    shown = data["frontier"]["methods"]
    marks = _marks(data, shown)
    table = _table(frontier_figure.headings(data["frontier"]), frontier_figure.rows(data["frontier"]), marks)
    by_name = {row["method"]: mark for row, mark in zip(shown, marks, strict=True)}
    return frontier_figure.whole(data, by_name, table)


def _against(data: Comparison) -> str:
    marks = _marks(data, data["against"])
    said = zip(data["against"], marks, strict=True)
    lines = "".join(f'<li class="{mark}">{text(sentence(data, row))}</li>' for row, mark in said)
    caption = (
        f"The method on the left minus {text(data['reference'])}, in points of the macro-average. Thick: 95 % "
        "interval on these sub-datasets (Student, over seeds). Thin: on sub-datasets like these (bootstrap over seeds, "
        "sub-datasets, items). Small circles: one seed each. A number at the edge: a difference beyond the axis."
    )
    told_apart = [row["holm"] is not None and row["holm"] < LEVEL for row in data["against"]]
    names, rows = without_empty(AGAINST, [against_cells(row) for row in data["against"]])
    table = _table(names, rows, marks, coloured=told_apart)
    drawn = forest.figure(data["against"], marks, _by_seed(data))
    figure = f'<figure class="card wide">{drawn}<figcaption>{caption}</figcaption></figure>'
    return f"{figure}<div style='margin-top:.9rem'>{table}</div><ul>{lines}</ul>"


def _by_seed(data: Comparison) -> dict[str, list[float]]:
    """Method to the difference of each seed, it minus the reference."""
    macros = {row["method"]: {run["seed"]: run["macro"] for run in row["runs"]} for row in data["methods"]}
    mine = macros[data["reference"]]
    return {row["method"]: [macros[row["method"]][s] - mine[s] for s in row["seeds"]] for row in data["against"]}


def _by_task(data: Comparison) -> str:
    """Differences with their intervals over seeds and items; bold if a test over seeds is significant."""
    rows = []
    for index, entry in enumerate(data["tasks"]):
        columns = []
        for row, mark in zip(data["against"], _marks(data, data["against"]), strict=True):
            if not row["tasks"]:
                columns.append(f'<td class="{mark}">–</td>')
                continue
            mine = row["tasks"][index]
            kind = {"win": " up", "loss": " down"}.get(mine["verdict"], "")
            shown = escape(difference(mine["difference"]["mean"]))
            span = escape(interval_or_why(mine["difference"], row))
            shown = f"<strong>{shown}</strong>" if kind else shown
            columns.append(f'<td class="{mark}{kind}" title="{span}">{shown}<span class="more">{span}</span></td>')
        rows.append(f"<tr><td>{_named(entry)}</td>{''.join(columns)}</tr>")
    heads = _heads(data, data["against"], ["sub-dataset"])
    table = f'<table class="scores compare"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    caption = (
        f"Each method minus {text(data['reference'])}, in points. Bold and coloured: p &lt; 0.05 over seeds. "
        "Hover over a difference to see its interval over seeds and items, or show all intervals:"
    )
    box = '<label class="chip"><input type="checkbox" id="intervals">intervals</label>'
    return f'<p class="soft">{caption} {box}</p><div class="card wide">{table}</div>'


def _scores(data: Comparison) -> str:
    marked = list(zip(data["methods"], _marks(data, data["methods"]), strict=True))
    rows = [
        f"<tr><td>{_named(entry)}</td><td>{text(entry['measure'])}</td><td>{entry['items'] or '–'}</td>"
        f"<td>{percent(entry['base'])}</td>"
        + "".join(f'<td class="{mark}">{with_reach(row["tasks"][entry["task"]])}</td>' for row, mark in marked)
        + "</tr>"
        for entry in data["tasks"]
    ]
    rows.append(
        f'<tr class="average"><td>average</td><td></td><td></td><td>{percent(data["base"]["macro"])}</td>'
        + "".join(f'<td class="{mark}">{with_reach(row["macro"])}</td>' for row, mark in marked)
        + "</tr>"
    )
    heads = _heads(data, data["methods"], ["sub-dataset", "measure", "items", "base"])
    body = f'<table class="scores compare"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="card wide">{body}</div>'


def _named(entry: Entry) -> str:
    return text(entry["task"]) + ("" if entry["learnable"] else ' <span class="soft">(no clear improvement)</span>')


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], marks: Sequence[str], coloured: Sequence[bool] = ()
) -> str:
    """`marks`: the rows' classes. `coloured`: whether the difference of a row (second column) is significant."""

    def cell(content: str, row: int, column: int) -> str:
        told = column == 1 and row < len(coloured) and coloured[row]
        direction = {"+": "up", "−": "down"}.get(content[:1]) if told else None
        return f'<td class="{direction}">{text(content)}</td>' if direction else f"<td>{text(content)}</td>"

    head = "".join(f"<th>{text(name)}</th>" for name in headings)
    lines = "".join(
        f'<tr class="{mark}">{"".join(cell(content, n, i) for i, content in enumerate(row))}</tr>'
        for n, (row, mark) in enumerate(zip(rows, marks, strict=True))
    )
    table = f'<table class="scores compare"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div class="card wide">{table}</div>'


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{text(title)}</h2>\n{content}\n</section>"
