"""Merge: one model for each sub-dataset, from the base model, merged in the end.

Each is trained on its sub-dataset alone, and stopped at its own best evaluation. `linear` is the mean of these models
(model soups, arXiv 2203.05482); `ties` trims their differences from the base model, and resolves where they disagree on
a sign (TIES-Merging, arXiv 2306.01708). The final model is the merged one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msft.core.curves import peak
from msft.core.method import Method, require, said_by
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, one_by_one
from msft.core.rollout import Answer, Point, Track, curves, roll_out
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Plan


@dataclass(frozen=True, kw_only=True)
class Params:
    how: Literal["linear", "ties"] = "linear"
    """How the models become one: their mean, or TIES."""
    density: float = 0.2
    """With `ties`: share of each model's differences from the base model that is kept, the largest of each tensor."""

    def __post_init__(self) -> None:
        require(0 < self.density < 1, "density", "a share between 0 and 1", self.density)


def plan(brief: Brief) -> Plan:
    return _plan(brief, [])


def explain(brief: Brief, outcomes: Sequence[Outcome]) -> list[str]:
    """What the models of the sub-datasets are, from the outcomes so far."""
    return said_by(_plan, brief, outcomes)


def _plan(brief: Brief, said: list[str]) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    best: list[Point] = []
    for task in brief.tasks:
        points = yield from roll_out(
            track, track.base, Mixture(tasks=(task,)), brief.horizon, watch=(task,), at_end=(task,),
            keep={point.snapshot for point in best}, answer=answer, why="candidate",
        )  # fmt: skip
        best.append(points[peak(curves(points, [task])[task]).tick])
        said.append(f"The model of {task}, trained on it alone, is that of epoch {best[-1].epoch:.4g}.")
    counts = Counter(point.snapshot for point in best)
    if p.how == "ties" and len(counts) > 1:
        counts.pop(ROOT, None)  # it has no differences to merge
    total = sum(counts.values())
    parts = [(snapshot, count / total) for snapshot, count in counts.items()]
    # At the position of the model that was trained for longest.
    longest = max(best, key=lambda point: point.epoch)
    merged = yield from track.blend(
        longest, parts, score=brief.tasks, keep=answer.keep, why="final", ties=p.density if p.how == "ties" else None
    )
    answer.offer(merged)
    return answer.choose(merged)


def outlook(brief: Brief, at: Standing) -> Outlook:
    """Each sub-dataset may be trained for the whole limit on epochs, one after the other."""
    left = brief.tasks
    if len(at.mixture.tasks) == 1:
        left = left[left.index(at.mixture.tasks[0]) :]
    return Outlook(bound=one_by_one(brief, left), snapshots=len(brief.tasks) + PLAIN_HELD)


METHOD = Method(
    plan=plan,
    Params=Params,
    outlook=outlook,
    explain=explain,
    presets={"linear": {"select": "last"}, "ties": {"how": "ties", "select": "last"}},
)
