"""Differences with their intervals on the page of a comparison: a line for each method. The figure is SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import median

from msft.report.words import clean, difference
from msft.study.compare_words import Entry, interval_or_why

MOST_NAME = 22
"""Maximum characters of a name in the figure."""
LEFT, WIDTH, LINE = 172, 330, 26
FAR = 3.0
"""See `_far`: such a difference would squeeze the others, and stands at the edge, as a number."""


def figure(rows: Sequence[Entry], marks: Sequence[str], seeds: Mapping[str, Sequence[float]]) -> str:
    """One line for each difference, in points; `marks`: the classes of the lines. `seeds`: method to the difference of
    each seed."""
    shown = [(row, mark) for row, mark in zip(rows, marks, strict=True) if row["difference"] is not None]
    far = _far([row for row, _ in shown], seeds)
    ends = [0.0, *(end for row, _ in shown if row["method"] not in far for end in _ends(row, seeds[row["method"]]))]
    step = _step(max(ends) - min(ends))
    low, high = step * (min(ends) // step), step * -(-max(ends) // step)
    high = high if high > low else low + step
    height = LINE * len(shown) + 46

    def x(points: float) -> float:
        return LEFT + WIDTH * (points - low) / (high - low)

    drawn = _axis(low, round((high - low) / step), step, height, x)
    for number, (row, mark) in enumerate(shown):
        mean = row["difference"]["mean"]
        about = f"{clean(row['method'])}: {difference(mean)}, {interval_or_why(row['difference'], row)}"
        drawn.append(f'<g class="{mark}"><title>{escape(about)}</title>')
        y = 6 + LINE * (number + 0.5)
        name = clean(row["method"])
        name = name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
        drawn.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if row["method"] in far:
            at, anchor = (LEFT + WIDTH, "end") if mean > 0 else (LEFT, "start")
            told = f"{difference(mean)} →" if mean > 0 else f"← {difference(mean)}"
            drawn.append(f'<text class="far" x="{at}" y="{y + 4}" text-anchor="{anchor}">{told}</text></g>')
            continue
        for entry, kind in ((row["difference"], "these"), (row["like_these"], "like")):
            if entry and entry["low"] is not None:
                span = f'x1="{x(100 * entry["low"]):.1f}" x2="{x(100 * entry["high"]):.1f}"'
                drawn.append(f'<line class="{kind}" {span} y1="{y}" y2="{y}"/>')
        drawn += [
            f'<circle class="seed" cx="{x(100 * each):.1f}" cy="{y + 8}" r="2.2"/>' for each in seeds[row["method"]]
        ]
        drawn.append(f'<circle cx="{x(100 * mean):.1f}" cy="{y}" r="4"/></g>')
    label = "differences of the macro-average with their intervals"
    size = f'viewBox="0 0 {LEFT + WIDTH + 30} {height}" style="width:100%;max-width:44rem"'
    return f'<svg role="img" aria-label="{label}" {size}>{"".join(drawn)}</svg>'


def _ends(row: Entry, seeds: Sequence[float]) -> list[float]:
    """All that a line shows, in points."""
    both = (row["difference"], row["like_these"])
    return [100 * e[key] for e in both for key in ("low", "mean", "high") if e and e[key] is not None] + [
        100 * each for each in seeds
    ]


def _far(rows: Sequence[Entry], seeds: Mapping[str, Sequence[float]]) -> set[str]:
    """The methods whose differences stand at the edge: those beyond FAR times the median reach of all intervals, unless
    the others' lines come as far."""
    means = {row["method"]: 100 * row["difference"]["mean"] for row in rows}
    reach = [max(abs(100 * end) for end in row["difference"].values() if end is not None) for row in rows]
    far = {name for name, mean in means.items() if abs(mean) > FAR * median(reach)}
    while True:
        ends = [0.0, *(end for row in rows if row["method"] not in far for end in _ends(row, seeds[row["method"]]))]
        if not (inside := {name for name in far if min(ends) <= means[name] <= max(ends)}):
            return far
        far -= inside


def _axis(low: float, ticks: int, step: float, height: int, x: Callable[[float], float]) -> list[str]:
    drawn = []
    for k in range(ticks + 1):
        at = low + k * step
        kind = ' class="zero"' if abs(at) < step / 2 else ""
        drawn.append(f'<line{kind} x1="{x(at):.1f}" x2="{x(at):.1f}" y1="6" y2="{height - 38}"/>')
        drawn.append(f'<text x="{x(at):.1f}" y="{height - 22}" text-anchor="middle">{escape(_tick(at, step))}</text>')
    middle = LEFT + WIDTH / 2
    drawn.append(f'<text class="soft" x="{middle}" y="{height - 4}" text-anchor="middle">difference, points</text>')
    return drawn


def _step(span: float) -> float:
    """A round number of points that divides the span into four to ten steps."""
    step = 0.01
    for factor in (2, 2.5, 2) * 6:
        if span / step <= 9:
            break
        step *= factor
    return step


def _tick(at: float, step: float) -> str:
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    return f"{at + 0.0:.{digits}f}".replace("-", "−")
