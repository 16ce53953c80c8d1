"""Quality over compute on the page of a comparison: a line for each method, and a table. The figure is SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

from msft.report.words import NOT_KNOWN, clean, percent, scaled
from msft.study.compare_words import Comparison

LEFT, WIDTH, NAMES = 62, 640, 190
"""Width of the axis, of the plot, and of the names to the right of it."""
LINE = 17
"""Least distance of two names."""
FAR = 4.0
"""See `_bounds` and `_Across`."""
HEADINGS = ("method", "quality at the end", "FLOPs", "as good as", "seeds that get there")
STYLE = """
.frontier path { fill: none; stroke-width: 1.7; } .frontier .lead { stroke: var(--rule); stroke-width: 1; }
.frontier .clipped { clip-path: url(#frontier-plot); } .frontier circle { stroke: var(--card); }
.frontier g:hover path:not(.lead) { stroke-width: 3.2; }
"""
DASHES = ("", "6 3", "2 3")
HUES = (212, 25, 145, 330, 265, 48, 185)
"""With the dashes, 21 methods are told apart."""


def caption(data: Mapping[str, Any], *, drawn: bool = True) -> str:
    """What figure and table show, and on which items; without `drawn`, of the table alone."""
    of = "The best model evaluated so far, mean over seeds"
    if data["measure"] == "held_out":
        how = (
            f"{of}: half of each sub-dataset's validation items choose it, the other half value it by the test metric, "
            "and the other way round. What a search decides on its way, it decides with all items."
        )
    else:
        how = (
            f"Some runs did not record each item, so this is the {data['measure']} metric of the base model and of the "
            "final model, mean over seeds, and nothing between them."
        )
    target = ""
    if data["target"] is not None:
        name = clean(data["reference"])
        target = f" The dashed line is {name}'s mean at the end." if drawn else ""
        target += (
            f" “As good as {name}”: the median FLOPs at which a seed comes to {name}'s mean at the end ({NOT_KNOWN}: "
            "half of the seeds or more never do)."
        )
    return f"{how} FLOPs include scoring, and leave out the test.{target}"


def headings(data: Mapping[str, Any]) -> list[str]:
    name = clean(data["reference"] or "")
    return [f"as good as {name}" if heading == "as good as" else heading for heading in HEADINGS[: 5 if name else 3]]


def rows(data: Mapping[str, Any]) -> list[list[str]]:
    """The table's cells, a method a line, in the order of `headings`."""
    found = []
    for row in data["methods"]:
        cells = [clean(row["method"]), percent(row["quality"]), _flops(row["flops"], data["unit"])]
        if row["method"] == data["reference"]:
            cells += [NOT_KNOWN] * 2  # it comes to its own mean at its end, which says nothing
        elif (reached := row["reached"]) is not None:
            when = _flops(reached["flops"], data["unit"]) if reached["flops"] is not None else NOT_KNOWN
            cells += [when, f"{reached['seeds']} of {reached['of']}"]
        found.append(cells)
    return found


def _flops(flops: float, unit: float | None) -> str:
    """As multiples of plain fine-tuning's, where it was run."""
    return f"{flops / unit:.2f} ×" if unit else scaled(flops, "").strip() or NOT_KNOWN


def figure(data: Mapping[str, Any], marks: Mapping[str, str]) -> str:
    """One line for each method; `marks`: the class of each, by which it can be switched off."""
    entries = data["methods"]
    unit: float = data["unit"] or 1.0
    low, high = _bounds(data)
    across = _Across.of([[flops / unit for flops, _ in row["curve"]] for row in entries])
    height = max(330, LINE * len(entries) + 20)

    def y(quality: float) -> float:
        return 8.0 + height * (high - 100 * quality) / (high - low)

    drawn = [f'<clipPath id="frontier-plot"><rect x="{LEFT}" y="4" width="{WIDTH}" height="{height + 4}"/></clipPath>']
    drawn += _axes(
        low, high, across, height, "FLOPs" if not data["unit"] else f"FLOPs, in those of {data['reference']}"
    )
    if data["target"] is not None:
        level = y(data["target"])
        drawn.append(f'<line class="zero" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{level:.1f}" y2="{level:.1f}"/>')
    wanted = [min(y(row["quality"]), 8.0 + height) for row in entries]
    for number, (row, at) in enumerate(zip(entries, _apart(wanted, 8, 8 + height), strict=True)):
        points = [(across.at(flops / unit), y(quality)) for flops, quality in row["curve"]]
        colour = f"hsl({HUES[number % len(HUES)]} 62% 50%)"
        dash = f' stroke-dasharray="{DASHES[number // len(HUES) % len(DASHES)]}"' if number >= len(HUES) else ""
        steps = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        steps += "".join(f"H{right:.1f}V{down:.1f}" for right, down in points[1:])
        right, below = across.at(row["flops"] / unit), 100 * row["quality"] < low
        down, name = wanted[number], clean(row["method"])
        about = f"{name}: {percent(row['quality'])} % at {_flops(row['flops'], data['unit'])} FLOPs"
        end = f'<circle cx="{right:.1f}" cy="{down:.1f}" r="4.5" style="fill:{colour}"/>'
        if below:
            end = f'<path d="M{right - 5:.1f} {down - 8:.1f}h10l-5 8z" style="fill:{colour};stroke:none"/>'
        short = name if len(name) <= 22 else name[:21] + "…"
        short += f" ({percent(row['quality'])})" if below else ""
        drawn.append(
            f'<g class="{marks[row["method"]]}"><title>{escape(about)}</title>'
            f'<path class="lead" d="M{right:.1f} {down:.1f}L{LEFT + WIDTH + 16} {at:.1f}"/>'
            f'<path class="clipped" d="{steps}" stroke="{colour}"{dash}/>{end}'
            f'<path d="M{LEFT + WIDTH + 18} {at:.1f}h20" stroke="{colour}"{dash}/>'
            f'<text x="{LEFT + WIDTH + 43}" y="{at + 4:.1f}">{escape(short)}</text></g>'
        )
    size = f'viewBox="0 0 {LEFT + WIDTH + 43 + NAMES} {height + 52}" style="width:100%;min-width:44rem"'
    return f'<svg class="frontier" role="img" aria-label="quality over compute" {size}>{"".join(drawn)}</svg>'


def _bounds(data: Mapping[str, Any]) -> tuple[float, float]:
    """The lowest and the highest quality, in %, that the axis shows. A method that is further below the median than FAR
    times what the best is above it (4 points at least) would squeeze all others: it stands at the edge, with its
    number."""
    ends: list[float] = [100 * row["quality"] for row in data["methods"]]
    ends += [] if data["target"] is None else [100 * data["target"]]
    best, middle = max(ends), median(ends)
    least = min(end for end in ends if end >= middle - FAR * max(best - middle, 1.0))
    spread = max(best - least, 1.0)
    return max(0.0, least - 0.4 * spread), best + 0.15 * spread


@dataclass(frozen=True)
class _Across:
    """The axis of FLOPs; logarithmic if the most expensive method takes FAR times the median or more, so that the
    others are not squeezed."""

    first: float
    top: float
    logs: bool

    @classmethod
    def of(cls, curves: Sequence[Sequence[float]]) -> _Across:
        top = max(curve[-1] for curve in curves) or 1.0
        first = min(curve[0] for curve in curves)
        logs = first > 0 and top >= FAR * median(curve[-1] for curve in curves)
        return cls(first if logs else 0.0, top, logs)

    def at(self, flops: float) -> float:
        """The position of so many FLOPs in the figure."""
        if not self.logs:
            return LEFT + WIDTH * flops / self.top
        return LEFT + WIDTH * math.log(max(flops, self.first) / self.first) / math.log(self.top / self.first)

    @property
    def ticks(self) -> list[float]:
        if not self.logs:
            return _ticks(0.0, self.top)
        powers = range(math.floor(math.log10(self.first)), math.ceil(math.log10(self.top)) + 1)
        places = [round(digit * 10.0**power, 12) for power in powers for digit in (1, 2, 5)]
        return [place for place in places if self.first <= place <= self.top]


def _axes(low: float, high: float, across: _Across, height: int, label: str) -> list[str]:
    drawn = []
    for value in _ticks(low, high):
        at = 8 + height * (high - value) / (high - low)
        drawn.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        drawn.append(f'<text class="soft" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across.ticks:
        at = across.at(value)
        shown = f"{value:g}" if across.top < 1e4 else scaled(value, "").strip()
        drawn.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{height + 8}" y2="{height + 13}"/>')
        drawn.append(f'<text class="soft" x="{at:.1f}" y="{height + 27}" text-anchor="middle">{shown}</text>')
    middle = LEFT + WIDTH / 2
    drawn.append(
        f'<text class="soft" x="{middle}" y="{height + 46}" text-anchor="middle">{escape(clean(label))}</text>'
    )
    turned = f'transform="rotate(-90 12 {height / 2})" text-anchor="middle"'
    return [*drawn, f'<text class="soft" x="12" y="{height / 2}" {turned}>quality, %</text>']


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, four to nine of them."""
    step = 10.0**-9
    while (high - low) / step > 9:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    first = int(-(-low // step))
    return [round(step * k, 9) for k in range(first, int(high / step + 1e-9) + 1)]


def _apart(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Heights near the wanted ones, in their order, at least LINE apart and, if they fit, between low and high."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places, floor = dict[int, float](), low + 4
    for i in order:
        places[i] = floor = max(wanted[i], floor)
        floor += LINE
    ceiling = high
    for i in reversed(order):
        places[i] = ceiling = min(places[i], ceiling)
        ceiling -= LINE
    return [places[i] for i in range(len(wanted))]


def whole(data: Comparison, marks: Mapping[str, str], table: str) -> str:
    """Figure, caption and table; `table`: the rows as HTML."""
    drawn = figure(data["frontier"], marks)
    said = escape(caption(data["frontier"]))
    if any(100 * row["quality"] < _bounds(data["frontier"])[0] for row in data["frontier"]["methods"]):
        said += " A triangle at the lower edge: a method further below than the axis shows."
    return (
        f'<figure class="card wide">{drawn}<figcaption>{said}</figcaption></figure>'
        f"<div style='margin-top:.9rem'>{table}</div>"
    )
