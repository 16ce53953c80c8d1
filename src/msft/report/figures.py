"""Curves of a run: the search score of each sub-dataset and of their average, and what an optimizer step did."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from msft.core.curves import smoothed
from msft.core.vocabulary import Task
from msft.report.base_and_answer import mean
from msft.report.cost import ledger
from msft.report.final_path import blended, discarded, final_path, taught_by
from msft.report.plots import FADED, LINE, MARK, PALETTE, STAR, Figure, figure, ink, short, shown, unit
from msft.report.rollouts import Rollout
from msft.report.standard_errors import Errors
from msft.report.story import Story
from msft.report.trail import Point
from msft.report.words import TEACHER, in_epochs

Row = list[float]
"""Epoch, compute spent (in the page's unit), roll-out."""
Drawn = tuple[Row, float | None]
"""Position, and the value as drawn; None breaks the line."""
Score = Callable[[Point], float | None]
"""What is drawn of a point: a score in percent, for example."""


class Curves:
    """The score figures of one run."""

    def __init__(self, story: Story, per: tuple[float, str] | None = None) -> None:
        """`per`: divisor and name of the unit of compute; None: chosen for this run."""
        self.story = story
        self.ledger = ledger(story)
        self.per, self.unit = per or unit(self.ledger[-1], "FLOPs")
        self.path = final_path(story)
        self.on_path = {point.snapshot for point in self.path.points}
        self.discarded, self.blended = discarded(story, self.path), blended(story, self.path)
        self.taught = taught_by(story, self.path)
        self.window, self.errors = story.outlook.window, Errors(story)

    def single(self, task: Task) -> Figure:
        """The search score of one sub-dataset: final path with its band, discarded branches, and where it was excluded.

        All have one range, so that the same height means the same number of points.
        """
        colour, dash = ink(self.story.tasks.index(task) % len(PALETTE))
        score = _scores_of(task)
        traces = [self._band(task, colour), *self._task(task, colour, dash), self._smooth(task, colour)]
        traces.append(self._star(score))
        made = figure(traces, height=210, y="search score, %") | {"follows": True}
        made["layout"]["yaxis"] |= {"range": self.range}
        return made

    @cached_property
    def range(self) -> list[float]:
        """Of the search scores of all sub-datasets, in percent."""
        known = [100 * s for p in self.story.trail.points.values() for s in p.scores.values() if math.isfinite(s)]
        low, high = min(known, default=0.0), max(known, default=100.0)
        gap = max(2.0, 0.08 * (high - low))
        return [short(low - gap), short(high + gap)]

    def average(self) -> Figure:
        """The macro-average of the search scores, at the points where every sub-dataset is scored."""
        traces = self.average_of("average", LINE, "solid", faded=FADED, opacity=1)
        for rollout in self.story.rollouts:
            if rollout.rolled_back:
                name = f"rolled back to this point, {in_epochs(rollout.rolled_back)} discarded"
                colour = MARK if self.path.follows(rollout) else FADED
                traces.append(self._mark(rollout.went_on, rollout.end, self._mean, name, "circle-open", colour))
        traces.append(self._star(self._mean))
        return figure(traces, height=280, y="average, %") | {"follows": True}

    def aggregate(self, name: Task) -> Figure:
        """The search score of the aggregate, at the points that could become the final model."""
        score = _scores_of(name)
        traces = self._lines(score, shown(name), LINE, "solid", faded=FADED, opacity=1)
        return figure([*traces, self._star(score)], height=280, y="search score, %") | {"follows": True}

    def average_of(
        self, name: str, colour: str, dash: str, *, faded: str | None = None, opacity: float = 0.38
    ) -> list[Figure]:
        """The lines of the macro-average under another name, to compare with other runs."""
        return self._lines(self._mean, name, colour, dash, faded=faded or colour, opacity=opacity)

    def of_segments(self, value: Score, name: str, unit: str) -> Figure:
        """A value of the training that led to a point."""

        def known(point: Point) -> float | None:
            found = value(point)
            return None if found is None else short(found)

        traces = self._lines(known, name, LINE, "solid", faded=FADED, opacity=1)
        return figure(traces, height=190, y=unit) | {"follows": True}

    def _mean(self, point: Point) -> float | None:
        return _percent(mean([point.scores.get(task) for task in self.story.tasks]))

    def _task(self, task: Task, colour: str, dash: str) -> list[Figure]:
        score = _scores_of(task)
        traces = self._lines(score, shown(task), colour, dash, faded=FADED, opacity=1, thin=self.window > 1)
        for rollout in self.story.rollouts:
            if task in rollout.excluded:
                kept = self.path.follows(rollout)
                name = f"{shown(task)}, excluded here{'' if kept else ', discarded'}"
                traces.append(self._mark(rollout.went_on, rollout.end, score, name, "x", colour if kept else FADED))
        return traces

    def _band(self, task: Task, colour: str) -> Figure:
        """One standard error above and below the scores of the final path, one area per roll-out."""
        area: list[Drawn] = []
        for _, places in self._kept(task):
            above, below = list[Drawn](), list[Drawn]()
            for row, point in places:
                score, error = point.scores[task], self.errors.of(task, [point.snapshot])
                if error is not None and math.isfinite(score):
                    above.append((row, _percent(score + error.size)))
                    below.append((row, _percent(score - error.size)))
            if len(above) > 1:
                area += [*([(above[0][0], None)] if area else []), *above, *below[::-1], above[0]]
        fill = {"fill": "toself", "fillcolor": colour, "line": {"width": 0}, "opacity": 0.2, "hoverinfo": "skip"}
        return _scatter(area, f"{shown(task)}, standard error", mode="lines", **fill)

    def _smooth(self, task: Task, colour: str) -> Figure:
        """The mean over several evaluations, in which the search looks for peaks."""
        line: list[Drawn] = []
        for rollout, places in self._kept(task, active=True) if self.window > 1 else ():
            scored = [point for point in rollout.points if task in point.scores]
            means = smoothed([point.scores[task] for point in scored], self.window)
            values = {point.snapshot: float(mean) for point, mean in zip(scored, means, strict=True)}
            line += [(places[0][0], None)] if line else []
            line += [(row, _percent(values[point.snapshot])) for row, point in places]
        name = f"{shown(task)}, mean over {self.window} evaluations"
        return _scatter(line, name, mode="lines", line={"color": colour, "width": 2.4})

    def _kept(self, task: Task, *, active: bool = False) -> Iterator[tuple[Rollout, list[tuple[Row, Point]]]]:
        """The scored points of the final path by roll-out, its start included, with their positions.

        `active`: only roll-outs in which the sub-dataset was active: an excluded one has no peak to be found.
        """
        for rollout in self.story.rollouts:
            kept = [point for point in rollout.points if point.snapshot in self.on_path]
            if len(kept) > 1 and (task in rollout.active or not active):
                again = [short(kept[0].epoch), short(self.ledger[kept[1].snapshot - 1] / self.per), kept[1].rollout]
                places = zip([again, *map(self._row, kept[1:])], kept, strict=True)
                if scored := [(row, point) for row, point in places if task in point.scores]:
                    yield rollout, scored

    def _lines(
        self, score: Score, name: str, colour: str, dash: str, *, faded: str, opacity: float, thin: bool = False
    ) -> list[Figure]:
        traces = []
        for branch in self.discarded:
            # A single point is a branch with only its end scored: it needs a marker, a line would not show it.
            points = self._line(branch, score)
            mode = "lines+markers" if len(points) < 3 else "lines"
            style: Figure = {"line": {"color": faded, "width": 1.3, "dash": "dot"}, "opacity": opacity}
            traces.append(_scatter(points, f"{name}, discarded", mode=mode, marker={"size": 3}, **style))
        for branch in self.taught:
            style = {"line": {"color": colour, "width": 1.3, "dash": "dashdot"}, "opacity": 0.6}
            points = self._line(branch, score)
            mode = "lines+markers" if len(points) < 3 else "lines"
            traces.append(_scatter(points, f"{name}, {TEACHER}", mode=mode, marker={"size": 3}, **style))
        for branch in self.blended:
            style = {"line": {"color": colour, "width": 1.3, "dash": dash}, "marker": {"size": 3, "color": colour}}
            points = self._line(branch, score)
            traces.append(_scatter(points, f"{name}, in the final model", mode="lines+markers", **style))
        style = {"line": {"color": colour, "width": 1 if thin else 2, "dash": dash},
                 "marker": {"size": 3 if thin else 4, "color": colour}}  # fmt: skip
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
        chosen = self.story.chosen
        if chosen is None or (known := score(chosen)) is None:
            return {}
        style = {"symbol": "star", "color": STAR, "size": 13}
        name = "chosen by the search" if self.story.refit else "final model"
        return _scatter([(self._row(chosen), known)], name, mode="markers", marker=style)


def _percent(score: float | None) -> float | None:
    return None if score is None else round(100 * score, 3)


def _scores_of(task: Task) -> Score:
    return lambda point: _percent(point.scores.get(task))


def _scatter(drawn: Sequence[Drawn], name: str, **style: Any) -> Figure:
    """A trace, or an empty object if there is nothing to show."""
    if not drawn:
        return {}
    return {
        "type": "scatter",
        "customdata": [row for row, _ in drawn],
        "y": [value if value is not None and math.isfinite(value) else None for _, value in drawn],
        "name": name,
        **style,
    }
