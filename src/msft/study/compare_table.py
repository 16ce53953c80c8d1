"""A comparison of methods in the terminal and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from msft.report.sheet import sheet
from msft.report.table import plain_table, print_line, roomy
from msft.report.words import clean, difference, percent
from msft.study.compare_answer import lead
from msft.study.compare_words import (
    AGAINST,
    HEADINGS,
    Comparison,
    against_cells,
    cells,
    columns,
    headline,
    in_brief,
    notes,
    without_empty,
)

WIDE = 120
"""Minimum terminal width for the whole table of methods."""


def render_comparison(data: Comparison, console: Console) -> None:
    """Write a comparison to a console; names are printed literally, never as mark-up."""
    with roomy(console):
        _render(data, console)


def _render(data: Comparison, console: Console) -> None:
    print_line(console, headline(data), "bold")
    for line in lead(data):
        print_line(console, line)
    console.print()
    keep = [i for i in columns(data) if console.width >= WIDE or HEADINGS[i] not in ("spread", "scoring share", "disk")]
    console.print(_table([HEADINGS[i] for i in keep], [[cells(row)[i] for i in keep] for row in data["methods"]]))
    if data["against"]:
        console.print()
        console.print(Text(f"Each method minus {clean(data['reference'])}", style="bold"))
        console.print(_table(*without_empty(AGAINST, [against_cells(row) for row in data["against"]])))
        console.print()
        for line in in_brief(data):
            print_line(console, f"- {line}")
    console.print()
    console.print(Text(f"Sub-datasets, {data['split']}, in %", style="bold"))
    console.print(_sub_datasets(data, console.width))
    for note in notes(data):
        print_line(console, note, "dim")


def _sub_datasets(data: Comparison, width: int) -> Group:
    """One row per sub-dataset, one column per method; several tables if the width does not fit all methods."""
    names = [row["method"] for row in data["methods"]]
    longest = max(len(clean(entry["task"])) for entry in data["tasks"]) + 4
    fit = max(1, (width - min(longest, 24) - 8) // (max(8, *(len(clean(name)) for name in names)) + 2))
    tables: list[Table | Text] = []
    for start in range(0, len(names), fit):
        rows = data["methods"][start : start + fit]
        lines = [
            [
                clean(entry["task"]) + ("" if entry["learnable"] else " *"),
                percent(entry["base"]),
                *(percent(_mean(row["tasks"][entry["task"]])) for row in rows),
            ]
            for entry in data["tasks"]
        ]
        lines.append(["average", percent(data["base"]["macro"]), *(percent(_mean(row["macro"])) for row in rows)])
        tables += [Text()] if tables else []
        tables.append(_table(["sub-dataset", "base", *(clean(row["method"]) for row in rows)], lines))
    return Group(*tables)


def _mean(entry: Any) -> float | None:
    return None if entry is None else entry["mean"]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = plain_table()
    for i, name in enumerate(headings):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def to_csv(data: Comparison) -> str:
    """One line per method and sub-dataset (and `average`), for a spreadsheet; shares in [0, 1], FLOPs, seconds, bytes.

    `difference`: this method minus the reference. A name that a spreadsheet would run as a formula gets a quote.
    """
    lines: list[list[Any]] = [
        ["method", "sub-dataset", "seeds", "mean", "low", "high", "reference", "difference", "difference_low",
         "difference_high", "p", "holm", "verdict", "validation", "gap", "worst", "spread", "flops_train",
         "flops_eval", "flops_probe", "seconds", "disk_peak_bytes", "disk_mean_bytes"]
    ]  # fmt: skip
    against = {row["method"]: row for row in data["against"]}
    for row in data["methods"]:
        versus = against.get(row["method"], {})
        by_task = {entry["task"]: entry for entry in versus.get("tasks", ())}
        common = [row["method"]]
        costs = [_mean(row[key]) for key in ("validation", "gap", "worst", "spread")]
        costs += [_mean(row["flops"][key]) for key in ("train", "eval", "probe")]
        costs += [_mean(row["seconds"]), *(_mean(row["disk"][key]) for key in ("peak_bytes", "mean_bytes"))]
        reference = data["reference"]
        tests = [versus.get("p"), versus.get("holm"), None]
        lines.append(
            [*common, "average", len(row["seeds"]), *_three(row["macro"]), reference,
             *_three(versus.get("difference")), *tests, *costs]
        )  # fmt: skip
        for task, entry in row["tasks"].items():
            mine = by_task.get(task, {})
            tests = [mine.get("p"), None, mine.get("verdict")]
            lines.append(
                [*common, task, len(row["seeds"]), *_three(entry), reference, *_three(mine.get("difference")),
                 *tests, *[None] * len(costs)]
            )  # fmt: skip
    return sheet(lines)


def _three(entry: Any) -> list[float | None]:
    return [None] * 3 if entry is None else [entry["mean"], entry["low"], entry["high"]]


def summary_line(method: str, seed: int, macro: float | None, gained: float | None) -> str:
    """A finished run, in one line."""
    return f"{clean(method)}, seed {seed}: {percent(macro)} ({difference(gained)})"
