"""The studies' figures, as plotly.js objects. Sub-datasets stand on an axis, never in a legend: 21 stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msft.core.vocabulary import Task
from msft.report.figures import Figure, shortened
from msft.report.words import clean
from msft.study.statistics import Interval

PALETTE = ("#3b82c4", "#d9534f", "#2e9e6b", "#e0a100", "#8a63c9", "#d0679d")
"""Told apart on light and dark paper; more series than these share colours, and no study has more."""


def figure(traces: Sequence[Figure], *, x: str, y: str, height: int = 340, legend: bool = True) -> Figure:
    """A figure with named axes."""
    axis = {"zeroline": False, "fixedrange": True, "automargin": True, "ticks": ""}
    return {
        "data": list(traces),
        "layout": {
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 12},
            "showlegend": legend,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {**axis, "title": {"text": x}},
            "yaxis": {**axis, "title": {"text": y}},
        },
    }


def task_axis(tasks: Sequence[Task]) -> dict[str, Any]:
    """One row for each sub-dataset, the first on top."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(tasks))),
        "ticktext": [shortened(clean(task)) for task in tasks],
        "range": [len(tasks) - 0.5, -0.5],
    }


def by_task(traces: Sequence[Figure], tasks: Sequence[Task], *, x: str, legend: bool = True) -> Figure:
    """A figure with a row for each sub-dataset; traces give the row's number as y."""
    made = figure(traces, x=x, y="", height=120 + 24 * len(tasks), legend=legend)
    made["layout"]["yaxis"] |= task_axis(tasks)
    return made


def dots(name: str, x: Sequence[float], y: Sequence[float], number: int, *, size: int = 8, **more: Any) -> Figure:
    """Points in the colour of series `number`."""
    marker = {"color": colour(number), "size": size, "opacity": 0.85}
    return {"type": "scatter", "mode": "markers", "name": name, "x": list(x), "y": list(y), "marker": marker, **more}


def line(name: str, x: Sequence[float], y: Sequence[float | None], number: int, **more: Any) -> Figure:
    """A line with markers in the colour of series `number`."""
    style = {"color": colour(number), "width": 2}
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y), "line": style,
            "marker": {"size": 5}, **more}  # fmt: skip


def intervals(name: str, x: Sequence[float], values: Sequence[Interval], number: int) -> Figure:
    """A line with the 95 % interval of each of its points."""
    up = [0.0 if v.high is None else v.high - v.mean for v in values]
    down = [0.0 if v.low is None else v.mean - v.low for v in values]
    error = {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 4}
    return line(name, x, [v.mean for v in values], number, error_y=error)


def heatmap(z: Sequence[Sequence[float | None]], tasks: Sequence[Task], *, unit: str, reach: float) -> Figure:
    """A square of sub-datasets by sub-datasets, colours from -reach to reach."""
    names = [shortened(clean(task)) for task in tasks]
    trace = {
        "type": "heatmap", "z": [list(row) for row in z], "x": list(range(len(tasks))), "y": list(range(len(tasks))),
        "zmin": -reach, "zmax": reach, "colorscale": "RdBu", "colorbar": {"title": {"text": unit}}, "xgap": 1,
        "ygap": 1, "hovertemplate": "%{z:.2f} " + unit + "<extra></extra>",
    }  # fmt: skip
    made = figure([trace], x="", y="", height=200 + 24 * len(tasks), legend=False)
    made["layout"]["yaxis"] |= task_axis(tasks)
    made["layout"]["xaxis"] |= {
        "tickmode": "array", "tickvals": list(range(len(tasks))), "ticktext": names, "tickangle": -45,
    }  # fmt: skip
    return made


def upright(x: float, dash: str = "dash") -> Figure:
    """A vertical line over the whole height, for `layout.shapes`."""
    style = {"color": "#8a8a8a", "width": 2, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": style}


def colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]
