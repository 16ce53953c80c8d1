"""Building blocks of the page's figures: plain plotly.js objects (data and layout), with a few keys of our own.

Text and grid take their colours from the page's style sheet, which has a light and a dark mode; the palette below is
readable in both. plotly.js interprets some HTML in its texts, so every name goes through `shown`.

A figure with `"views": [trajectory, compute]` has its data twice, once for each horizontal axis that the reader can
choose. A figure with `"follows": True` has scatter traces whose `customdata` rows begin with the epoch, the compute
spent and the roll-out; the page's script takes x from them, and shows values as `format` says. `uprights` are vertical
lines, with one x per axis; `marks` are, for each axis, texts above the first row with their x.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from msft.report.words import PREFIXES, clean

Figure = dict[str, Any]

LINE, FADED, MARK, STAR = "#3b82c4", "rgba(140,140,140,0.7)", "#d9534f", "#e0a100"
PALETTE = (
    "#3b82c4", "#e07b39", "#3a9a5b", "#c4508a", "#8a6fd1", "#a07a2c", "#2a9da5", "#d0504a", "#7d8f2f", "#5b74e0",
    "#b5654a", "#6f8796",
)  # fmt: skip
MANY = 8
"""With more sub-datasets, rows are dense, and a heat map stands for a curve of each."""
LONGEST_NAME = 22
DASHES = ("solid", "dash", "dot")


def ink(index: int) -> tuple[str, str]:
    """Colour and dash of sub-dataset number `index`: 36 different combinations."""
    return PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]


def shown(name: str) -> str:
    """A name that plotly.js shows literally: mark-up and entities escaped, no control characters."""
    return html.escape(clean(name))


def shortened(name: str) -> str:
    """A name cut to `LONGEST_NAME` characters, safe for plotly.js."""
    name = clean(name)
    return html.escape(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…")


def unit(most: float, name: str) -> tuple[float, str]:
    """Divisor and unit of an axis whose maximum is `most`: (1e15, "PFLOPs")."""
    power = 0
    while most >= 1000 ** (power + 1) and power < len(PREFIXES) - 1:
        power += 1
    return 1000.0**power, f"{PREFIXES[power]}{name}"


def short(number: float) -> float:
    """Rounded to five significant digits: precise enough to draw, and keeps the page small."""
    return float(f"{number:.5g}")


def figure(traces: Sequence[Figure], *, height: int, x: str = "", y: str = "", legend: bool = False) -> Figure:
    """A figure of these traces; empty traces are omitted."""
    axis = {"zeroline": False, "fixedrange": True, "automargin": True, "ticks": ""}
    return {
        "data": [trace for trace in traces if trace],
        "layout": {
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 12},
            "showlegend": legend,
            "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
            "hoverlabel": {"namelength": -1, "align": "left"},
            "hovermode": "closest",
            "xaxis": {**axis, "title": {"text": x}, "rangemode": "tozero"},
            "yaxis": {**axis, "title": {"text": y}},
        },
    }


def rows_of(place: Figure, names: Sequence[str]) -> Figure:
    """Gives the vertical axis of a figure one row per name, the first on top."""
    place["layout"]["yaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [shortened(name) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
    }
    return place


def bars(base: list[float], x: list[float], y: list[Any], text: list[str], name: str, colour: str) -> Figure:
    """Horizontal bars; an empty object if there are none."""
    if not x:
        return {}
    return {
        "type": "bar", "orientation": "h", "base": base, "x": x, "y": y, "hovertext": text, "hoverinfo": "text",
        "textposition": "none", "width": 0.62, "name": name, "marker": {"color": colour, "line": {"width": 0}},
    }  # fmt: skip
