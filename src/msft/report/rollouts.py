"""Roll-outs of a run, and the decision that followed each (design 2.1, 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from msft.core.clock import Clock
from msft.core.curves import peak, smoothed
from msft.core.outlook import Outlook
from msft.core.vocabulary import Outcome, Segment, Snapshot, Task, Why
from msft.report.trail import BRANCHES, Point, Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The curve of one excluded sub-dataset, in the roll-out after which it was excluded."""

    task: Task
    best: float
    """Search score at its peak, smoothed as the method smooths it."""
    best_epoch: float
    end: float
    """Search score at the end, smoothed in the same way."""
    peaked: bool
    """The peak comes before the end."""
    best_at: tuple[Snapshot, ...]
    """The evaluations over which `best` is the mean."""
    end_at: tuple[Snapshot, ...]
    measured: tuple[float, float] | None = None
    """The scores at the peak and at the end as they were measured; None if the method does not smooth them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Training with one set of active sub-datasets, and the decision that followed."""

    number: int
    why: Why
    """A candidate ends where it was meant to end: nothing is decided on it, and nothing of it is rolled back."""
    active: tuple[Task, ...]
    points: tuple[Point, ...]
    """From its start (tick 0) to its end."""
    excluded: tuple[Task, ...]
    """Active here, not active in the next roll-out."""
    went_on: Point
    """The point from which the search continued; the end of the roll-out if nothing followed."""
    readings: tuple[Reading, ...]
    """Those of `excluded` that have a curve (three points or more), in the same order."""
    followed: bool
    """Training followed, so the decision has been taken."""
    may_exclude: bool
    """Whether the method may exclude sub-datasets after it."""

    @property
    def start(self) -> Point:
        return self.points[0]

    @property
    def end(self) -> Point:
        return self.points[-1]

    @property
    def rolled_back(self) -> float:
        """Epochs that were discarded; 0 if training continued from the end, or from a point outside this roll-out."""
        if self.went_on.snapshot == self.end.snapshot or self.went_on.snapshot not in {p.snapshot for p in self.points}:
            return 0.0
        return self.end.epoch - self.went_on.epoch


def find_rollouts(trail: Trail, segments: Sequence[tuple[Segment, Outcome]], outlook: Outlook) -> Iterable[Rollout]:
    """Groups consecutive segments with the same roll-out, the same active sub-datasets, and training or not.

    Blends are made beside roll-outs. A candidate, a final branch, or a part of the run on all rows, is a roll-out of
    its own. What was decided after a roll-out shows in the next one of the search.
    """

    def alike(entry: tuple[int, Segment]) -> tuple[int, tuple[Task, ...], bool, Why]:
        _, segment = entry
        return segment.rollout, segment.mixture.active, segment.trains, segment.why

    numbered = [(number, segment) for number, (segment, _) in enumerate(segments, start=1) if not segment.blend]
    groups = [(key, list(entries)) for key, entries in groupby(numbered, key=alike)]
    for i, ((number, active, trains, why), entries) in enumerate(groups):
        if not trains:
            continue
        # A roll-out may contain a change of weights only: it is still one roll-out, and tick 0 is the parent.
        points = [trail.points[entries[0][1].parent], *(trail.points[n] for n, _ in entries)]
        excluded: tuple[Task, ...] = ()
        went_on = points[-1]
        later = (group for group in groups[i + 1 :] if why == "candidate" or group[0][-1] not in BRANCHES)
        following = next(later, None)
        if following is not None and why not in BRANCHES:
            (_, staying, _, _), after = following
            excluded = tuple(task for task in active if task not in staying)
            went_on = trail.points[after[0][1].parent]
        judged = _judged(outlook, trail.clock, points)
        yield Rollout(
            number=number,
            why=why,
            active=active,
            points=tuple(points),
            excluded=excluded,
            went_on=went_on,
            readings=tuple(r for task in excluded if (r := _reading(task, judged, outlook.window))),
            followed=following is not None,
            may_exclude=outlook.excludes,
        )


def _judged(outlook: Outlook, clock: Clock, points: list[Point]) -> list[Point]:
    """The points on which the decision at the end of a roll-out was based.

    A search that found nothing to exclude continues with the same mixture and the same roll-out number, and then
    decides on the ticks since its last decision: the last `outlook.rollout` epochs, or fewer if the limit on epochs
    was reached.
    """
    end = points[-1]
    if not math.isfinite(outlook.rollout) or end.mixture is None:
        return points
    period = clock.steps(end.mixture, outlook.rollout)
    since = (end.step - 1) // period * period
    return points[:1] * (since == 0) + [point for point in points[1:] if point.step >= since]


def _reading(task: Task, points: Sequence[Point], window: int) -> Reading | None:
    """None if the sub-dataset was not scored at every tick: then the decision used no peak."""
    scored = [point for point in points if task in point.scores]
    if len(scored) < 3:
        return None
    curve = [point.scores[task] for point in scored]
    top = peak(curve, window)
    values = smoothed(curve, window)
    half, at = window // 2, [point.snapshot for point in scored]
    return Reading(
        task=task,
        best=float(values[top.tick]),
        best_epoch=scored[top.tick].epoch,
        end=float(values[-1]),
        peaked=top.before_end,
        best_at=tuple(at[max(0, top.tick - half) : top.tick + half + 1]),
        end_at=tuple(at[-half - 1 :]),
        measured=(curve[top.tick], curve[-1]) if window > 1 else None,
    )
