"""The page's figures, as plain plotly.js figure objects (data and layout).

Text and grid take their colours from the page's style sheet, which knows light and dark; the palette below is chosen
to be read on both. plotly.js reads a little HTML in its texts: every name goes through `plain`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, pairwise
from typing import Any

from msft.core.vocabulary import ROOT, Snapshot, Task
from msft.report.comparison import mean
from msft.report.story import Place, Story
from msft.report.words import clean, epochs, percent

Figure = dict[str, Any]

LINE, FADED, MARK, STAR = "#3b82c4", "rgba(140,140,140,0.7)", "#d9534f", "#e0a100"
ACTIVE, REPLAYED = "#3b82c4", "rgba(59,130,196,0.35)"


def plain(name: str) -> str:
    """A name that plotly.js shows as it is: its mark-up and entities taken literally, no control characters."""
    return html.escape(clean(name))


def curve_figure(story: Story, task: Task) -> Figure:
    """The control score of one sub-dataset over the epochs: what survived, what was rolled back, where it left."""
    places = [r.went_on for r in story.rollouts if task in r.excluded]
    marks = [(place, "excluded from here on") for place in places if place.snapshot in story.surviving]
    return _scores(story, lambda place: place.scores.get(task), marks, "x", y="control score, %", height=220)


def average_figure(story: Story) -> Figure:
    """The macro-average of the control scores, at the points where every sub-dataset is scored."""
    marks = [
        (r.went_on, f"rolled back to here, {epochs(r.rolled_back)} epochs given up")
        for r in story.rollouts
        if r.rolled_back
    ]

    def score(place: Place) -> float | None:
        return mean([place.scores.get(task) for task in story.tasks])

    return _scores(story, score, marks, "circle-open", y="average, %", height=260)


def _scores(
    story: Story,
    score: Callable[[Place], float | None],
    marks: Sequence[tuple[Place, str]],
    symbol: str,
    *,
    y: str,
    height: int,
) -> Figure:
    """Scores over epochs along every branch, with marks and the answer on top."""

    def known(places: Iterable[Place]) -> list[tuple[Place, float]]:
        return [(place, s) for place in places if (s := score(place)) is not None]

    kept = story.surviving
    traces = [_line(known(branch), FADED, "rolled back", dash="dot") for branch in branches(story, kept=False)]
    traces += [_line(known(branch), LINE, "surviving", markers=True) for branch in branches(story, kept=True)]
    # A branch of which only the end was scored is a point, and would be invisible as a line.
    ends = known(p for p in story.trail.places.values() if p.snapshot not in kept)
    traces.append(_scatter(ends, "rolled back", mode="markers", marker={"color": FADED, "size": 3}))
    traces += [_mark(known([place]), symbol, MARK, name) for place, name in marks]
    if story.answer is not None:
        traces.append(_mark(known([story.answer]), "star", STAR, "the answer"))
    return _figure([trace for trace in traces if trace], y=y, height=height)


def branches(story: Story, *, kept: bool) -> list[list[Place]]:
    """The trajectories that survived, or those that did not, each from the place where it leaves an earlier one."""
    survivors, places = story.surviving, story.trail.places
    chosen = [p for p in places.values() if (p.snapshot in survivors) == kept]
    parents = {p.parent for p in chosen if p.snapshot != p.parent}
    drawn: set[Snapshot] = set() if kept else set(survivors)
    found = []
    for tip in (p for p in chosen if p.snapshot not in parents):
        branch = [tip]
        while branch[-1].snapshot not in drawn and branch[-1].snapshot != ROOT:
            drawn.add(branch[-1].snapshot)
            branch.append(places[branch[-1].parent])
        found.append(branch[::-1])
    return found


def lane_figure(story: Story) -> Figure:
    """Which sub-dataset was trained in full, replayed or left out, over the epochs of the surviving trajectory."""
    names = {task: plain(task) for task in story.tasks}
    bars: dict[str, dict[str, list[Any]]] = {key: {"base": [], "x": [], "y": [], "text": []} for key in ("a", "r")}
    path = story.trunk
    for _, group in groupby(pairwise(path), key=lambda leg: _parts(leg[1])):
        steps = list(group)
        mixture = steps[-1][1].mixture
        assert mixture is not None, "only the base model has no mixture"
        start, end = steps[0][0].epoch, steps[-1][1].epoch
        for i, task in enumerate(mixture.tasks):
            share = 1.0 if mixture.shares is None else mixture.shares[i]
            part = bars["a" if share == 1 else "r"]
            what = "trained" if share == 1 else f"replayed, {share:.0%} of it"
            part["base"].append(start)
            part["x"].append(end - start)
            part["y"].append(story.tasks.index(task))
            part["text"].append(f"{names[task]}: {what}, epoch {epochs(start)} to {epochs(end)}")
    traces = [
        _bars(bars["a"], "trained in full", ACTIVE),
        _bars(bars["r"], "replayed in part", REPLAYED),
    ]
    figure = _figure([t for t in traces if t["x"]], y="", height=90 + 26 * len(story.tasks), legend=True)
    figure["layout"]["barmode"] = "overlay"
    figure["layout"]["yaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(story.tasks))),
        "ticktext": [shortened(clean(task)) for task in story.tasks],
        "range": [len(story.tasks) - 0.5, -0.5],
        "showgrid": False,
    }
    figure["layout"]["xaxis"]["range"] = [0, max(1e-3, path[-1].epoch)]
    figure["layout"]["shapes"] = [
        _upright(r.went_on.epoch, MARK, "dot") for r in story.rollouts if r.excluded and r.went_on in path
    ]
    if story.answer in path:
        figure["layout"]["shapes"].append(_upright(story.best_known.epoch, STAR, "solid"))
    return figure


def _parts(place: Place) -> object:
    """What of a mixture the lanes show: a change of weights or of single instances changes no lane."""
    return None if place.mixture is None else (place.mixture.tasks, place.mixture.shares)


def shortened(name: str, most: int = 18) -> str:
    """A label that leaves room for the figure, safe for plotly.js."""
    return html.escape(name if len(name) <= most else name[: most - 1] + "…")


def _line(
    points: Iterable[tuple[Place, float]], colour: str, name: str, *, dash: str = "solid", markers: bool = False
) -> Figure:
    return _scatter(
        list(points),
        name,
        mode="lines+markers" if markers else "lines",
        line={"color": colour, "width": 2 if markers else 1.3, "dash": dash},
        marker={"size": 4, "color": colour},
    )


def _mark(points: Sequence[tuple[Place, float]], symbol: str, colour: str, name: str) -> Figure:
    return _scatter(points, name, mode="markers", marker={"symbol": symbol, "color": colour, "size": 12})


def _scatter(points: Sequence[tuple[Place, float]], name: str, **style: Any) -> Figure:
    """A trace, or an empty object where there is nothing to show."""
    if not points:
        return {}
    texts = [f"{name}: {percent(s)} at epoch {epochs(p.epoch)}, roll-out {p.rollout}" for p, s in points]
    return {
        "type": "scatter",
        "x": [round(p.epoch, 4) for p, _ in points],
        "y": [round(100 * s, 3) if math.isfinite(s) else None for _, s in points],
        "hovertext": texts,
        "hoverinfo": "text",
        "name": name,
        **style,
    }


def _bars(part: dict[str, list[Any]], name: str, colour: str) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "base": part["base"],
        "x": part["x"],
        "y": part["y"],
        "hovertext": part["text"],
        "hoverinfo": "text",
        "textposition": "none",
        "width": 0.62,
        "name": name,
        "marker": {"color": colour, "line": {"width": 0}},
    }


def _upright(epoch: float, colour: str, dash: str) -> Figure:
    return {
        "type": "line", "x0": epoch, "x1": epoch, "yref": "paper", "y0": 0, "y1": 1,
        "line": {"color": colour, "width": 2, "dash": dash},
    }  # fmt: skip


def _figure(traces: list[Figure], *, y: str, height: int, legend: bool = False) -> Figure:
    axis = {"zeroline": False, "fixedrange": True, "automargin": True, "ticks": ""}
    return {
        "data": traces,
        "layout": {
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 11},
            "showlegend": legend,
            "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
            "hoverlabel": {"namelength": -1, "align": "left"},
            "xaxis": {**axis, "title": {"text": "epoch"}, "rangemode": "tozero"},
            "yaxis": {**axis, "title": {"text": y}},
        },
    }
