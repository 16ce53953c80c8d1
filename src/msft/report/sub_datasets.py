"""One row per sub-dataset: its scores, their change, how long the final path trained it, and why no longer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msft.core.plain_words import many
from msft.core.vocabulary import Task
from msft.report.base_and_answer import Comparison, Row
from msft.report.final_path import FinalPath
from msft.report.html import soft, text
from msft.report.intervals import Interval
from msft.report.plots import MANY
from msft.report.standard_errors import Errors, told_fall
from msft.report.story import Story
from msft.report.table import columns
from msft.report.words import NOT_KNOWN, clean, difference, epochs, percent, span

WIDTH, HEIGHT = 140, 16
"""Of a drawing of one change, in px."""
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""Ends of the common axis of the changes."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Where the final path stopped to train a sub-dataset."""

    until: str
    fall: str


def endings(story: Story, path: FinalPath) -> Mapping[Task, Ending]:
    """Until when what led to the final model trained each sub-dataset, and the fall on which it was excluded."""
    errors, excluded = Errors(story), {each.task for each in path.excluded}
    falls = {
        reading.task: told_fall(reading, errors.fall(reading))
        for rollout in story.rollouts
        if path.follows(rollout)
        for reading in rollout.readings
        if reading.task in excluded
    }
    return {
        task: Ending(
            (epochs(at) if at else "not trained") + (" ✕" if task in excluded and at else ""),
            falls.get(task, NOT_KNOWN),
        )
        for task, at in path.until.items()
    }


def rows_table(story: Story, path: FinalPath, comparison: Comparison) -> str:
    """The table; the average is its last row."""
    found = endings(story, path)
    rows = [*([] if comparison.aggregate is None else [comparison.aggregate]), *comparison.rows, comparison.macro]
    spans = [row.interval for row in rows if row.interval is not None]
    changed = story.answer is not story.base
    end = _end(rows) if changed else 0.0
    decided = any(each.fall != NOT_KNOWN for each in found.values())
    common = _measured_alike(comparison)
    cells = _head("sub-dataset", is_word=True)
    cells += "" if common else _head(f"{comparison.split}, in % (items)", is_word=True, wide=True)
    cells += "".join(map(_head, ("base", columns(story, comparison)[3], "change")))
    cells += _head("95 % interval", wide=True) if spans else ""
    cells += f'<th scope="col" class="word extra">{_axis(end)}</th>' if end else ""
    cells += _head("trained until epoch") + (_head("decided by a fall of", wide=True) if decided else "")
    body = []
    for row in rows:
        known = found.get(story.task_of(row.label)) if row is not comparison.macro else None
        line = f'<th scope="row">{_breakable(row.label)}</th>'
        line += "" if common else f'<td class="word extra">{text(_measure(row))}</td>'
        line += f"<td>{percent(row.base)}</td><td>{percent(row.answer)}</td>"
        under = f'<span class="narrow">{_told(row.interval)}</span>' if row.interval else ""
        line += f"<td{_evidence(row.interval)}>{difference(row.difference)}{under}</td>"
        line += f'<td class="extra">{_told(row.interval)}</td>' if spans else ""
        line += f'<td class="word extra">{_drawn(row, end)}</td>' if end else ""
        line += f"<td>{text(known.until if known else '')}</td>"
        line += f'<td class="extra">{text(known.fall if known else "")}</td>' if decided else ""
        kind = ' class="average"' if row is comparison.macro else ""
        body.append(f"<tr{kind}>{line}</tr>")
    dense = " dense" if len(comparison.rows) > MANY else ""
    table = f"<thead><tr>{cells}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'{soft(common) if common else ""}<div class="card wide"><table class="scores{dense}">{table}</table></div>'


def _measured_alike(comparison: Comparison) -> str:
    """What every row measures, as a sentence; empty where rows differ."""
    kinds = {(row.measure, row.items) for row in comparison.rows}
    if comparison.aggregate is not None:
        return ""
    if len(kinds) != 1 or len(comparison.rows) < 2:
        return ""
    ((measure, items),) = kinds
    counted = f" of {many(items, 'item')} each" if items is not None else ""
    return f"{comparison.split.capitalize()} splits{counted}, {clean(measure)} in %."


def _breakable(name: str) -> str:
    """A name that may be broken behind its underscores, rather than within a word."""
    return text(name).replace("_", "_<wbr>")


def _head(name: str, is_word: bool = False, wide: bool = False) -> str:
    kinds = " ".join(["word"] * is_word + ["extra"] * wide)
    kind = f' class="{kinds}"' if kinds else ""
    return f'<th scope="col"{kind}>{text(name)}</th>'


def _measure(row: Row) -> str:
    return clean(row.measure) + (f" ({row.items:,})" if row.items is not None else "")


def _told(interval: Interval | None) -> str:
    return span(*interval or (None, None))


def _evidence(interval: Interval | None) -> str:
    """The class of a change that its interval shows to be a gain or a loss."""
    if interval is None or interval[0] * interval[1] <= 0:
        return ""
    return ' class="up"' if interval[0] > 0 else ' class="down"'


def _end(rows: list[Row]) -> float:
    """The end of an axis around zero that holds every change and interval; 0 if there is no change."""
    sizes = [abs(x) for row in rows for x in (row.difference, *(row.interval or ())) if x is not None]
    most = max((size for size in sizes if math.isfinite(size)), default=0.0)
    return next((step for step in STEPS if step >= most), 1.0) if sizes else 0.0


def _x(change: float, end: float) -> str:
    return f"{WIDTH / 2 + (WIDTH / 2 - 6) * max(-1.0, min(1.0, change / end)):.1f}"


def _axis(end: float) -> str:
    """The head of the drawings: the axis that they share."""
    marks = ((-end, "start", 1), (0.0, "middle", WIDTH / 2), (end, "end", WIDTH - 1))
    labels = "".join(
        f'<text x="{x:g}" y="12" text-anchor="{anchor}">{difference(at).removesuffix(".0") if at else 0}</text>'
        for at, anchor, x in marks
    )
    return _svg(labels, "axis of the changes, in points")


def _drawn(row: Row, end: float) -> str:
    """A change on the common axis: zero line, interval, dot."""
    if row.difference is None or not math.isfinite(row.difference):
        return ""
    middle, zero = HEIGHT / 2, WIDTH / 2
    parts = f'<line class="zero" x1="{zero:g}" x2="{zero:g}" y1="0" y2="{HEIGHT}"/>'
    if row.interval:
        low, high = (_x(bound, end) for bound in row.interval)
        parts += f'<line class="span" x1="{low}" x2="{high}" y1="{middle:g}" y2="{middle:g}"/>'
    parts += f'<circle cx="{_x(row.difference, end)}" cy="{middle:g}" r="4"/>'
    told = f", 95 % interval {_told(row.interval)}" if row.interval else ""
    return _svg(parts, f"change {difference(row.difference)}{told}", _evidence(row.interval))


def _svg(content: str, label: str, kind: str = "") -> str:
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg {size}{kind} role="img" aria-label="{text(label)}">{content}</svg>'
