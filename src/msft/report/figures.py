"""Score curves: of all sub-datasets together, of each one, and of their average."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from msft.core.vocabulary import ROOT, Snapshot, Task
from msft.report.base_and_answer import mean
from msft.report.cost import ledger
from msft.report.final_path import FinalPath, final_path
from msft.report.plots import FADED, LINE, MARK, STAR, Figure, figure, ink, short, shown, unit
from msft.report.story import Point, Story
from msft.report.words import epochs

Row = list[float]
"""Epoch, compute spent (in the page's unit), roll-out."""
Drawn = tuple[Row, float | None]
"""Position, and the score in [0, 1]; None breaks the line."""
Score = Callable[[Point], float | None]


class Curves:
    """The score figures of one run."""

    def __init__(self, story: Story, per: tuple[float, str] | None = None) -> None:
        """`per`: divisor and name of the unit of compute; None: chosen for this run."""
        self.story = story
        self.ledger = ledger(story)
        self.per, self.unit = per or unit(self.ledger[-1], "FLOPs")
        self.path = final_path(story)
        self.discarded = discarded(story, self.path)

    def together(self) -> Figure:
        """All sub-datasets in one figure; `meta` of a trace is the number of its sub-dataset."""
        traces = []
        for i, task in enumerate(self.story.tasks):
            colour, dash = ink(i)
            traces += [
                {**trace, "meta": i} for trace in self._task(task, colour, dash, faded=FADED, opacity=0.6) if trace
            ]
        made = figure(traces, height=430, y="search score, %")
        return made | {"follows": True, "uprights": self._uprights()}

    def single(self, task: Task) -> Figure:
        """The search score of one sub-dataset: final path, discarded branches, and where it was excluded."""
        colour, dash = ink(self.story.tasks.index(task))
        traces = self._task(task, colour, dash, faded=FADED, opacity=1)
        traces.append(self._star(lambda point: point.scores.get(task)))
        return figure(traces, height=210, y="search score, %") | {"follows": True}

    def average(self) -> Figure:
        """The macro-average of the search scores, at the points where every sub-dataset is scored."""
        traces = self.average_of("average", LINE, "solid", faded=FADED, opacity=1)
        for rollout in self.story.rollouts:
            if rollout.rolled_back:
                name = f"rolled back to this point, {epochs(rollout.rolled_back)} epochs discarded"
                colour = MARK if self.path.follows(rollout) else FADED
                traces.append(self._mark(rollout.went_on, rollout.end, self._mean, name, "circle-open", colour))
        traces.append(self._star(self._mean))
        return figure(traces, height=280, y="average, %") | {"follows": True}

    def average_of(
        self, name: str, colour: str, dash: str, *, faded: str | None = None, opacity: float = 0.38
    ) -> list[Figure]:
        """The lines of the macro-average under another name, to compare with other runs."""
        return self._lines(self._mean, name, colour, dash, faded=faded or colour, opacity=opacity)

    def _mean(self, point: Point) -> float | None:
        return mean([point.scores.get(task) for task in self.story.tasks])

    def _task(self, task: Task, colour: str, dash: str, *, faded: str, opacity: float) -> list[Figure]:
        def score(point: Point) -> float | None:
            return point.scores.get(task)

        traces = self._lines(score, shown(task), colour, dash, faded=faded, opacity=opacity)
        for rollout in self.story.rollouts:
            if task in rollout.excluded:
                kept = self.path.follows(rollout)
                name = f"{shown(task)}, excluded here{'' if kept else ', discarded'}"
                traces.append(self._mark(rollout.went_on, rollout.end, score, name, "x", colour if kept else FADED))
        return traces

    def _lines(self, score: Score, name: str, colour: str, dash: str, *, faded: str, opacity: float) -> list[Figure]:
        traces = []
        for branch in self.discarded:
            # A single point is a branch with only its end scored: it needs a marker, a line would not show it.
            points = self._line(branch, score)
            mode = "lines+markers" if len(points) < 3 else "lines"
            style: Figure = {"line": {"color": faded, "width": 1.3, "dash": "dot"}, "opacity": opacity}
            traces.append(_scatter(points, f"{name}, discarded", mode=mode, marker={"size": 3}, **style))
        style = {"line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": 4, "color": colour}}
        traces.append(_scatter(self._line(self.path.points, score), name, mode="lines+markers", **style))
        return traces

    def _line(self, branch: Sequence[Point], score: Score) -> list[Drawn]:
        """Scored points. After a roll-back to a point, the line continues from the time of the roll-back."""
        drawn: list[Drawn] = [] if (first := score(branch[0])) is None else [(self._row(branch[0]), first)]
        for point, following in pairwise(branch):
            since, known = self.ledger[following.snapshot - 1], score(point)
            if known is not None and self._left(point, following):
                again = [short(point.epoch), short(since / self.per), following.rollout]
                # The first point of a branch belongs to the branch it starts from.
                drawn = drawn[:-1] if point is branch[0] else [*drawn, (again, None)]
                drawn.append((again, known))
            if (value := score(following)) is not None:
                drawn.append((self._row(following), value))
        return drawn

    def _left(self, point: Point, following: Point) -> bool:
        """Whether other training happened between a point and the segment that continued from it."""
        between = self.story.segments[point.snapshot : following.snapshot - 1]
        return any(segment.trains for segment, _ in between)

    def _row(self, point: Point) -> Row:
        return [short(point.epoch), short(self.ledger[point.snapshot] / self.per), point.rollout]

    def _mark(self, point: Point, decided: Point, score: Score, name: str, symbol: str, colour: str) -> Figure:
        """A mark at a point, at the time when the decision about it was taken."""
        row = [short(point.epoch), short(self.ledger[decided.snapshot] / self.per), decided.rollout]
        known = score(point)
        points = [] if known is None else [(row, known)]
        return _scatter(points, name, mode="markers", marker={"symbol": symbol, "color": colour, "size": 11})

    def _star(self, score: Score) -> Figure:
        answer = self.story.answer
        if answer is None or (known := score(answer)) is None:
            return {}
        style = {"symbol": "star", "color": STAR, "size": 13}
        return _scatter([(self._row(answer), known)], "final model", mode="markers", marker=style)

    def _uprights(self) -> list[dict[str, Any]]:
        lines = [
            {"at": [r.went_on.epoch, short(self.ledger[r.end.snapshot] / self.per)], "colour": MARK, "dash": "dot"}
            for r in self.story.rollouts
            if (r.excluded or r.rolled_back) and self.path.follows(r)
        ]
        if self.story.answer is not None:
            lines.append({"at": self._row(self.story.answer)[:2], "colour": STAR, "dash": "solid"})
        return lines


def discarded(story: Story, path: FinalPath) -> list[list[Point]]:
    """All training beside the final path, each branch from the point where it leaves the path or an earlier branch."""
    points, drawn = story.trail.points, set[Snapshot](path.snapshots)
    chosen = [p for p in points.values() if p.snapshot not in drawn]
    parents = {p.parent for p in chosen}
    found = []
    for tip in (p for p in chosen if p.snapshot not in parents):
        branch = [tip]
        while branch[-1].snapshot not in drawn and branch[-1].snapshot != ROOT:
            drawn.add(branch[-1].snapshot)
            branch.append(points[branch[-1].parent])
        found.append(branch[::-1])
    return found


def _scatter(drawn: Sequence[Drawn], name: str, **style: Any) -> Figure:
    """A trace, or an empty object if there is nothing to show."""
    if not drawn:
        return {}
    return {
        "type": "scatter",
        "customdata": [row for row, _ in drawn],
        "y": [round(100 * s, 3) if s is not None and math.isfinite(s) else None for _, s in drawn],
        "name": name,
        **style,
    }
