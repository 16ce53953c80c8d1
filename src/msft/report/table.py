"""A run in the terminal: scores, exclusions, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msft.core.plain_words import many
from msft.core.vocabulary import Task
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import Comparison, Row, compare
from msft.report.cautions import cautions
from msft.report.cost import flops, plain
from msft.report.gains import gains_of, sentences
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story
from msft.report.summary import disk
from msft.report.verdict_views import render_steps, render_verdict
from msft.report.words import NOT_KNOWN, clean, decisions, difference, duration, epochs, listed, percent, scaled, span

INTERVAL_NOTE = (
    "The interval covers test-set sampling only. Retraining with another seed can change the result by more."
)
LOG_WIDTH = 160
"""Columns of a table where there is no terminal that has a width."""
VALIDATION_NOTE = (
    "No test scores: these are validation scores, and the search acted on them. Expect lower scores on new data."
)

REFIT_NOTE = (
    "No test scores: these are validation scores of the model that the search chose. The final model has none, because "
    "it was trained on these rows too. Expect lower scores on new data."
)


def render_text(folder: RunFolder, console: Console, *, with_notes: bool = True) -> None:
    """Write the report of a run, finished or not, to a console.

    Names are printed literally, never as mark-up. `with_notes`: with what the run said as it began. Raises RunError if
    the folder holds no readable run.
    """
    story = read_story(folder)
    comparison = compare(story)
    console.print(Text(headline(story), style="bold"))
    render_verdict(story, console)
    render_cautions(story, comparison, console, with_notes=with_notes)
    console.print()
    print_table(console, rich_table(*shown_columns(story, comparison), text_columns=2, average=True))
    for note in notes(comparison):
        print_line(console, note, "dim")
    console.print()
    console.print(Text("What happened", style="bold"))
    for line in decisions(story):
        print_line(console, f"- {line}")
    if story.outlook.window > 1:
        print_line(console, f"  {smoothing(story.outlook.window)}", "dim")
    if (gains := gains_of(story)) is not None:
        console.print()
        console.print(Text("Headroom", style="bold"))
        for line in sentences(gains, decided=bool(story.explanations)):
            print_line(console, f"- {line}")
    console.print()
    console.print(Text("What it cost", style="bold"))
    for name, value in costs(story):
        print_line(console, f"- {name}: {value}")
    console.print()
    render_steps(story, console)


def print_line(console: Console, line: str, style: str = "") -> None:
    """Writes a sentence. In a log file it is one line, however long."""
    console.print(Text(line, style=style), soft_wrap=not console.is_terminal)


def print_table(console: Console, table: Table) -> None:
    """Writes a table; in a log file, wide enough for its columns."""
    with roomy(console):
        console.print(table)


@contextmanager
def roomy(console: Console) -> Iterator[None]:
    """Where there is no terminal that has a width, a console is as wide as a table may need."""
    width = console.width
    if not console.is_terminal:
        console.width = max(width, LOG_WIDTH)
    try:
        yield
    finally:
        console.width = width


def render_cautions(story: Story, comparison: Comparison, console: Console, *, with_notes: bool = True) -> None:
    """Write the warnings, the gravest first."""
    for line in cautions(story, comparison, with_notes=with_notes):
        print_line(console, f"warning: {line}", "yellow")


def smoothing(window: int) -> str:
    """How the scores in the decisions were smoothed."""
    return f"Peaks are found on means over {window} evaluations."


def headline(story: Story) -> str:
    """Method, model and state of the run."""
    method = clean(str(story.header.get("method", "")))
    model = model_name(story)
    state = "finished" if story.answer else f"not finished, at epoch {epochs(story.tip.epoch)}"
    return f"{method} on {model}, {counted(story)}: {state}"


def counted(story: Story) -> str:
    """How many data sets the mixture has, and how many sub-datasets of the search they are."""
    if not story.groups:
        return many(len(story.tasks), "sub-dataset")
    return f"{many(len(story.entries), 'data set')} in {many(len(story.tasks), 'sub-dataset')}"


def model_name(story: Story) -> str:
    """The name of the model; of a folder, its last part: where it lies on a machine is no name."""
    name = clean(str(story.header.get("model", {}).get("name", "")))
    is_folder = name.startswith(("/", "~", ".")) or name.count("/") > 1
    return PurePath(name).name or name if is_folder else name


def notes(comparison: Comparison) -> list[str]:
    """Notes that are needed to read the table."""
    lines = [REFIT_NOTE if comparison.refit else VALIDATION_NOTE] if comparison.split == "validation" else []
    if any(row.interval for row in comparison.rows):
        lines.append(INTERVAL_NOTE)
    if (chooser := comparison.chosen_by) is not None:
        scores = f"{percent(chooser.base)} for the base model, {percent(chooser.answer)} for the final model"
        lines.append(
            f"{clean(chooser.label)} chose the final model, by its search score alone, and is not in the average; its "
            f"{chooser.measure} on {many(chooser.items or 0, 'validation item')}: {scores}."
        )
    if comparison.groups:
        lines.append(f"{groups_in_words(comparison.groups)}.")
    if comparison.left_out:
        lines.append(f"Not in this table, because they have no test split: {listed(comparison.left_out)}.")
    return lines


def groups_in_words(groups: Mapping[Task, Sequence[Task]]) -> str:
    """Which data sets share a validation score, and are excluded together."""
    listed_groups = "; ".join(f"{clean(group)} ({listed(members)})" for group, members in groups.items())
    return f"Groups, each with one validation score and one exclusion: {listed_groups}"


def costs(story: Story) -> list[tuple[str, str]]:
    """Compute, time and disk: (name, text)."""
    compute, spent, held = flops(story), seconds_of(story), disk(story)
    total = sum(compute.values())
    parts = ", ".join(f"{name} {value / total:.0%}" for name, value in compute.items() if value) if total else ""
    lines = [("Compute", scaled(total, "FLOPs") + (f" ({parts})" if parts else ""))]
    if (estimated := plain(story)) is not None and estimated.total:
        times = f"this run used {total / estimated.total:.2f}x the compute of {estimated.name}"
        how = f"{many(estimated.evaluations, 'evaluation')}, {scaled(estimated.total, 'FLOPs')}"
        lines.append(("Relative compute", f"{times} (estimate: {how})"))
    if spent.total:
        lines.append(("Time", spent.in_words))
    if held["sft_bytes"]:
        against = scaled(held["sft_bytes"], "B")
        lines.append(
            (
                "Snapshots",
                f"at most {scaled(held['peak_bytes'], 'B')}, on average {scaled(held['mean_bytes'], 'B')} "
                f"({held['peak_bytes'] / held['sft_bytes']:.1f}x and {held['mean_bytes'] / held['sft_bytes']:.1f}x "
                f"the {against} of plain SFT that keeps its last and its best model)",
            )
        )
    return lines


def cost_line(story: Story) -> str:
    """Compute, time and disk in one line."""
    parts = [scaled(sum(flops(story).values()), "FLOPs")]
    if (estimated := plain(story)) is not None and estimated.total:
        parts[0] += f", {sum(flops(story).values()) / estimated.total:.2f}x the compute of {estimated.name} (estimate)"
    if (clock := seconds_of(story)).total:
        parts.append(duration(clock.total))
    if most := disk(story)["peak_bytes"]:
        parts.append(f"at most {scaled(most, 'B')} of snapshots")
    return "; ".join(parts) + "."


def columns(story: Story, comparison: Comparison) -> list[str]:
    """Headings of the comparison; `cells` gives a row in the same order."""
    now = "search" if comparison.refit else "final model" if story.answer else "so far"
    return ["sub-dataset", f"{comparison.split}, in %", "base", now, "change", "95 % interval", "items"]


def cells(row: Row) -> list[str]:
    interval = row.interval
    return [
        clean(row.label),
        row.measure,
        percent(row.base),
        percent(row.answer),
        difference(row.difference),
        span(*interval or (None, None)),
        str(row.items) if row.items is not None else NOT_KNOWN,
    ]


def shown_columns(story: Story, comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, the average last; without the interval column if no row has an interval."""
    names = columns(story, comparison)
    first = [] if comparison.aggregate is None else [comparison.aggregate]
    rows = [cells(row) for row in (*first, *comparison.rows, comparison.macro)]
    keep = [i for i, name in enumerate(names) if name != "95 % interval" or any(r[i] != NOT_KNOWN for r in rows)]
    return [names[i] for i in keep], [[row[i] for i in keep] for row in rows]


def plain_table() -> Table:
    """An empty table for the terminal, with a line below the headings only."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")


def rich_table(names: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int, average: bool) -> Table:
    """A table for the terminal. The first `text_columns` columns are text; with `average`, the last row is that."""
    made = plain_table()
    for i, name in enumerate(names):
        # At 80 columns the names do not wrap; the name of the measure may, and "final model" takes two lines.
        heading = "final\nmodel" if name == "final model" else name
        made.add_column(heading, justify="left" if i < text_columns else "right", overflow="fold", no_wrap=i != 1)
    for row in rows[:-1] if average else rows:
        made.add_row(*map(Text, row))
    if average:
        made.add_section()
        made.add_row(*map(Text, rows[-1]), style="bold")
    return made
