"""The studies' figures. Sub-datasets are on an axis, not in a legend, so that 21 of them are readable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msft.core.vocabulary import Task
from msft.report.plots import PALETTE, Figure, figure, rows_of, shortened
from msft.study.statistics import Interval

GREY = "#8a8a8a"


def by_task(traces: Sequence[Figure], tasks: Sequence[Task], *, x: str, legend: bool = True) -> Figure:
    """A figure with one row per sub-dataset; traces use the row's number as y."""
    return rows_of(figure(traces, height=110 + 24 * len(tasks), x=x, legend=legend), tasks)


def dots(name: str, x: Sequence[float], y: Sequence[float], number: int, *, size: int = 8, **more: Any) -> Figure:
    """Points in the colour of series `number`."""
    marker = {"color": colour(number), "size": size, "opacity": 0.8}
    return {"type": "scatter", "mode": "markers", "name": name, "x": list(x), "y": list(y), "marker": marker, **more}


def beside(rows: int, number: int, series: int) -> list[float]:
    """y of each row for one of several series, with an offset so that equal values do not hide each other."""
    return [row + 0.5 * ((number + 0.5) / series - 0.5) for row in range(rows)]


def line(name: str, x: Sequence[float], y: Sequence[float | None], number: int, **more: Any) -> Figure:
    """A line with markers in the colour of series `number`."""
    style, marker = {"color": colour(number), "width": 2}, {"size": 5, "color": colour(number)}
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y), "line": style,
        "marker": marker, **more,
    }  # fmt: skip


def intervals(name: str, x: Sequence[float], values: Sequence[Interval], number: int, *, scale: float = 1) -> Figure:
    """A line with the 95 % intervals of its points, where they exist."""
    up = [0.0 if v.high is None else scale * (v.high - v.mean) for v in values]
    down = [0.0 if v.low is None else scale * (v.mean - v.low) for v in values]
    error = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 4}
    return line(name, x, [scale * v.mean for v in values], number, error_y=error)


def heatmap(z: Sequence[Sequence[float | None]], tasks: Sequence[Task], *, unit: str, reach: float) -> Figure:
    """Sub-datasets by sub-datasets, colours from -reach to reach."""
    places = list(range(len(tasks)))
    trace = {
        "type": "heatmap", "z": [list(row) for row in z], "x": places, "y": places, "zmin": -reach, "zmax": reach,
        "colorscale": "RdBu", "colorbar": {"title": {"text": unit}}, "xgap": 1, "ygap": 1,
        "hovertemplate": "%{z:.2f} " + unit + "<extra></extra>",
    }  # fmt: skip
    made = rows_of(figure([trace], height=190 + 24 * len(tasks)), tasks)
    names = [shortened(task) for task in tasks]
    made["layout"]["xaxis"] |= {"tickmode": "array", "tickvals": places, "ticktext": names, "tickangle": -45}
    del made["layout"]["xaxis"]["rangemode"]
    return made


def upright(x: float) -> Figure:
    """A dashed vertical line, for a figure's `uprights`."""
    return {"at": [x, x], "colour": GREY, "dash": "dash"}


def colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]


def against(traces: Sequence[Figure], x: Sequence[float], level: float, name: str, *, x_name: str, y: str) -> Figure:
    """Lines over x, and a dashed reference level."""
    style = {"color": GREY, "dash": "dash", "width": 2}
    plain = {"type": "scatter", "mode": "lines", "name": name, "x": [min(x), max(x)], "y": [level] * 2, "line": style}
    return figure([*traces, plain], height=320, x=x_name, y=y, legend=True)
