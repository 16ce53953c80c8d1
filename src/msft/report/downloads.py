"""Every score of a run as a file that the page itself holds: CSV and JSON."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from msft.report.final_path import final_path
from msft.report.sheet import sheet
from msft.report.story import Story

FIELDS = ("split", "snapshot", "epoch", "rollout", "in_final_path", "sub_dataset", "search_score", "test_metric")


def score_rows(story: Story) -> list[dict[str, Any]]:
    """One row per point and sub-dataset, then those of the test split. Scores in [0, 1], None if not finite."""
    path, rows = final_path(story), []
    for point in sorted(story.trail.points.values(), key=lambda point: point.snapshot):
        place = (point.snapshot, point.epoch, point.rollout, point.snapshot in path.snapshots)
        for task in story.names:
            if task in point.scores or task in point.reports:
                scores = _known(point.scores.get(task)), _known(point.reports.get(task))
                rows.append(dict(zip(FIELDS, ("validation", *place, task, *scores), strict=True)))
    for outcome in {o.snapshot: o for o in story.test.values()}.values():
        point = story.trail.points[outcome.snapshot]
        for task in story.tested:
            if task in outcome.reports:
                place = (point.snapshot, point.epoch, point.rollout, True)
                scores = _known(outcome.scores.get(task)), _known(outcome.reports[task])
                rows.append(dict(zip(FIELDS, ("test", *place, task, *scores), strict=True)))
    return rows


def links(story: Story) -> str:
    """Links that save these rows; the page holds the files, nothing is fetched."""
    rows = score_rows(story)
    content = sheet([FIELDS, *([row[name] for name in FIELDS] for row in rows)])
    made = (("CSV", "text/csv", content), ("JSON", "application/json", json.dumps(rows, allow_nan=False)))
    return ", ".join(
        f'<a download="scores.{kind.lower()}" href="data:{mime};base64,{base64.b64encode(data.encode()).decode()}">'
        f"{kind}</a>"
        for kind, mime, data in made
    )


def _known(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None
