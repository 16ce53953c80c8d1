"""All sub-datasets by all evaluations in one figure: how far each search score is from the base model's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from msft.core.vocabulary import ROOT, Task
from msft.report.cost import ledger
from msft.report.final_path import FinalPath
from msft.report.lanes import SAID, Place, place_of
from msft.report.plots import STAR, Figure, figure, rows_of, short, shown, unit
from msft.report.standard_errors import EVIDENT, Error, Errors
from msft.report.story import Story
from msft.report.trail import Point
from msft.report.words import difference, epochs, percent

AVERAGE = "average"
ROW = 15
"""Height of a row in px."""
SCALE = ((0.0, "#c05a00"), (0.25, "#e9a15c"), (0.5, "rgba(150,150,150,0.18)"), (0.75, "#6aa7da"), (1.0, "#1a5f9e"))
"""Orange below the base model, blue above: told apart by every kind of colour vision, on light and dark ground."""
PALE = 0.3
"""Opacity of what may be noise."""
HIDDEN = "rgba(0,0,0,0)"
VEIL = "rgba(128,128,128,0.6)"

Grid = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class _Column:
    """The training between two evaluations, with the scores at its end."""

    start: float
    end: float
    point: Point | None
    """None where nothing was trained."""
    place: Place = "final"


def heat_map(story: Story, path: FinalPath) -> Figure:
    """Both views; see `msft.report.plots`. A column is as wide as the training before its evaluation."""
    spent = ledger(story)
    per, _ = unit(spent[-1], "FLOPs")
    steps = zip(path.points, path.points[1:], strict=False)
    along = [_Column(short(a.epoch), short(b.epoch), b) for a, b in steps if b.epoch > a.epoch]
    over = [
        _Column(short(spent[n - 1] / per), short(spent[n] / per), story.trail.points[n], place_of(story, path, n))
        for n, (segment, _) in enumerate(story.segments, start=1)
        if segment.trains
    ]
    rows = [*story.tasks, AVERAGE]
    made = rows_of(figure([], height=80 + ROW * len(rows)), rows)
    drawing = _Drawing(story)
    made["views"] = [drawing.traces(along), drawing.traces(over)]
    if story.answer is not None:
        at = [story.answer.epoch, short(spent[story.answer.snapshot] / per)]
        made["uprights"] = [{"at": at, "colour": STAR, "dash": "solid"}]
    return made


class _Drawing:
    def __init__(self, story: Story) -> None:
        self.story, self.errors = story, Errors(story)
        self.rows: list[Sequence[Task]] = [*([task] for task in story.tasks), story.tasks]
        """What a row shows: a sub-dataset, or the average of all."""
        scored = [self._change(p, row) for p in story.trail.points.values() for row in self.rows]
        self.most = max((abs(change) for change in scored if change is not None), default=1.0) or 1.0

    def traces(self, columns: Sequence[_Column]) -> list[Figure]:
        """Clear changes, those within noise in pale, a veil over what was discarded, and the texts of all."""
        columns = _filled([column for column in columns if column.end > column.start])
        if not columns:
            return []
        clear, pale, veil, scored = Grid(), Grid(), Grid(), Grid()
        for row in self.rows:
            changes = [self._change(c.point, row) for c in columns]
            sure = [self._evident(c.point, row, x) for c, x in zip(columns, changes, strict=True)]
            clear.append([x if yes else None for x, yes in zip(changes, sure, strict=True)])
            pale.append([None if yes else x for x, yes in zip(changes, sure, strict=True)])
            scored.append([None if x is None else 0.0 for x in changes])
            veil.append([0.0 if x is not None and c.place == "discarded" else None
                         for c, x in zip(columns, changes, strict=True)])  # fmt: skip
        edges = [columns[0].start, *(column.end for column in columns)]
        base: Figure = {
            "type": "heatmap", "x": edges, "y": list(range(len(self.rows))), "zmin": -self.most,
            "zmax": self.most, "colorscale": [list(stop) for stop in SCALE], "hoverinfo": "skip", "showscale": False,
            "hoverongaps": False, "ygap": 1,
        }  # fmt: skip
        bar = {"title": {"text": "points", "side": "right"}, "thickness": 10, "outlinewidth": 0}
        told = [[self._told(row, c) for c in columns] for row in self.rows]
        return [
            {**base, "name": "clear", "z": clear, "showscale": True, "colorbar": bar},
            {**base, "name": "within noise", "z": pale, "opacity": PALE},
            {**base, "name": "discarded", "z": veil, "colorscale": [[0, VEIL], [1, VEIL]]},
            {**base, "name": "changes", "z": scored, "colorscale": [[0, HIDDEN], [1, HIDDEN]], "hovertext": told,
             "hoverinfo": "text"},
        ]  # fmt: skip

    def _change(self, point: Point | None, row: Sequence[Task]) -> float | None:
        """Points of 100; None if it was not scored."""
        if point is None or any(task not in point.scores for task in row):
            return None
        change = fmean(point.scores[task] - self.story.base.scores[task] for task in row)
        return round(100 * change, 3) if math.isfinite(change) else None

    def _error(self, point: Point, row: Sequence[Task]) -> Error | None:
        found = [self.errors.of(task, [point.snapshot], [ROOT]) for task in row]
        known = [error for error in found if error is not None]
        if len(known) < len(found):
            return None
        size = math.sqrt(math.fsum(error.size**2 for error in known)) / len(row)
        return Error(size, any(error.at_most for error in known))

    def _evident(self, point: Point | None, row: Sequence[Task], change: float | None) -> bool:
        """Whether it is beyond noise, or nothing is known of the noise."""
        if point is None or change is None:
            return False
        error = self._error(point, row)
        return error is None or abs(change) > EVIDENT * 100 * error.size

    def _told(self, row: Sequence[Task], column: _Column) -> str:
        point = column.point
        change = self._change(point, row)
        if point is None or change is None:
            return ""
        score = fmean(point.scores[task] for task in row)
        told = f"{percent(score)}, {difference(change / 100)} {self._error(point, row) or ''}".strip()
        out = len(row) == 1 and (point.mixture is None or row[0] not in point.mixture.active)
        where = f"epoch {epochs(point.epoch)}, roll-out {point.rollout}"
        name = shown(row[0]) if len(row) == 1 else AVERAGE
        left = ", excluded" * out + SAID[column.place]
        return f"{name}: {told} against the base model<br>{where}{left}"


def _filled(columns: Sequence[_Column]) -> list[_Column]:
    """The columns side by side: with empty ones where nothing was trained, such as the scoring of roll-back points."""
    made: list[_Column] = []
    for column in columns:
        if made and column.start > made[-1].end:
            made.append(_Column(made[-1].end, column.start, None))
        made.append(column)
    return made
