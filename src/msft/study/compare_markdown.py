"""A comparison of methods as Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msft.report.words import NOT_KNOWN, clean, percent
from msft.study import frontier_figure
from msft.study.compare_answer import lead
from msft.study.compare_words import (
    AGAINST,
    HEADINGS,
    Comparison,
    against_cells,
    cells,
    headline,
    in_brief,
    interval,
    notes,
    same_models,
    without_empty,
)

LIKE_THESE = "95 %, sub-datasets like these"


def to_markdown(data: Comparison) -> str:
    """Methods, each minus the reference, conclusions, sub-datasets; in percent and points, without times.

    Times depend on the load of the machine; they are in the page and the CSV.
    """
    timeless = [number for number, heading in enumerate(HEADINGS) if heading != "time"]
    rows = [[cells(row)[number] for number in timeless] for row in data["methods"]]
    parts = [f"{headline(data)}.", "\n".join(f"- {line}" for line in lead(data))]
    parts += [table(*without_empty([HEADINGS[n] for n in timeless], rows))]
    if data["against"]:
        reference = clean(data["reference"])
        versus = [[*against_cells(row), _like_these(row)] for row in data["against"]]
        parts += [table(*without_empty([f"minus {reference}", *AGAINST[1:], LIKE_THESE], versus))]
        parts += ["\n".join(f"- {line}" for line in in_brief(data))]
    if (found := data.get("frontier")) and found["methods"]:
        parts += [f"Quality over compute. {frontier_figure.caption(found, drawn=False)}"]
        parts += [table(*without_empty(frontier_figure.headings(found), frontier_figure.rows(found)))]
    parts += [_sub_datasets(data), "\n".join(f"- {note}" for note in notes(data))]
    return "\n\n".join(parts) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the first column aligned left and the others right."""
    lines = [list(headings), [":---", *["---:"] * (len(headings) - 1)]]
    lines += [[re.sub(r"([\\|`]|<(?=\S))", r"\\\1", cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _like_these(row: dict[str, Any]) -> str:
    return interval(row["like_these"]) if row["like_these"] and not same_models(row) else NOT_KNOWN


def _sub_datasets(data: Comparison) -> str:
    methods = data["methods"]
    rows = [
        [
            clean(entry["task"]) + ("" if entry["learnable"] else " *"),
            percent(entry["base"]),
            *(_mean(row["tasks"][entry["task"]]) for row in methods),
        ]
        for entry in data["tasks"]
    ]
    return table(["sub-dataset", "base", *(clean(row["method"]) for row in methods)], rows)


def _mean(entry: Any) -> str:
    return NOT_KNOWN if entry is None else percent(entry["mean"])
