"""mSFT: exclude what overfits first, roll back to its peak, continue with the rest (arXiv 2603.21606, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from msft.core.clock import Clock
from msft.core.curves import peak
from msft.core.method import Method, require
from msft.core.outlook import Bound, Outlook, Standing, most_held
from msft.core.plain_words import many
from msft.core.rollout import Answer, Point, Track, curves, replaying, roll_out
from msft.core.vocabulary import Brief, Outcome, Plan, Segment, Task

RELEASE = {
    "budget": 10.0, "smooth": 1, "flat": "leaves", "leave_within": 0.0, "ties": "first", "roll_back": "earliest",
    "replay": 0.0, "optimizer": "reset", "max_rollouts": 10, "max_epochs": None, "average": "micro",
    "score_excluded": "rollout",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Params:
    """The parameters of design 1.1; the defaults are the robust preset."""

    budget: float = 4.0
    """Maximum epochs per roll-out (the paper's C)."""
    smooth: int = 5
    """Number of evaluations in the centred mean that smooths a validation curve before its peak is read; odd."""
    flat: Literal["stays", "leaves"] = "stays"
    """What happens to a sub-dataset whose curve ends as high as at its earlier peak: it stays active, or it leaves (is
    excluded)."""
    leave_within: float = 1.0
    """Sub-datasets that peak at most this many epochs after the earliest peak are excluded together with it."""
    ties: Literal["all", "first"] = "all"
    """Which sub-datasets to exclude after a roll-out: `all` that `leave_within` allows, or only one: of those with the
    earliest peak, the alphabetically `first`."""
    roll_back: Literal["lower_median", "earliest"] = "lower_median"
    """Which peak to roll back to when several sub-datasets are excluded: the (lower) median or the earliest."""
    replay: float = 0.1
    """Share of each excluded sub-dataset that stays in the mixture, to limit forgetting; 0: none."""
    optimizer: Literal["restore", "reset"] = "restore"
    """AdamW's moments after a roll-back: restored from the snapshot, or reset to zero."""
    max_rollouts: int | None = None
    """Maximum number of roll-outs; null: only `max_epochs` ends the search."""

    def __post_init__(self) -> None:
        require(self.budget > 0, "budget", "more than 0 epochs", self.budget)
        require(self.smooth >= 1 and self.smooth % 2 == 1, "smooth", "an odd number of evaluations", self.smooth)
        require(self.leave_within >= 0, "leave_within", "0 epochs or more", self.leave_within)
        require(0 <= self.replay < 1, "replay", "a share from 0 to below 1", self.replay)
        require(self.max_rollouts is None or self.max_rollouts >= 1, "max_rollouts", "at least 1", self.max_rollouts)


def plan(brief: Brief) -> Plan:
    answer = Answer(brief, (track := Track(brief)).base)
    last, _ = yield from search(track, brief.params, answer)
    return answer.choose(last)


def search(track: Track, p: Params, answer: Answer) -> Generator[Segment, Outcome, tuple[Point, dict[Task, float]]]:
    """Algorithm 1. Returns the last point, and the position (in epochs) at which each sub-dataset was excluded."""
    tasks, here, left_at = track.brief.tasks, track.base, dict[Task, float]()
    rollouts = 0
    while (epochs := min(p.budget, track.left(here))) and rollouts != p.max_rollouts:
        active = tuple(task for task in tasks if task not in left_at)
        if not active:
            break
        rollouts += 1
        points = yield from roll_out(
            track, here, replaying(tasks, left_at, p.replay), epochs, watch=active, at_end=tasks, window=p.smooth,
            answer=answer, reset_optimizer=p.optimizer == "reset",
        )  # fmt: skip
        here = points[-1]
        answer.offer(here)
        peaks = {task: peak(curve, p.smooth) for task, curve in curves(points, active).items()}
        leavers = [t for t in active if peaks[t].before_end and (peaks[t].falls or p.flat == "leaves")]
        if not leavers:
            continue
        first = min(peaks[task].tick for task in leavers)
        latest = points[first].epoch + p.leave_within + 1e-9
        out = [task for task in leavers if points[peaks[task].tick].epoch <= latest]
        if p.ties == "first":
            out = [min(task for task in leavers if peaks[task].tick == first)]
        ticks = sorted(peaks[task].tick for task in out)
        here = points[ticks[(len(ticks) - 1) // 2] if p.roll_back == "lower_median" else ticks[0]]
        left_at |= dict.fromkeys(out, here.epoch)
        here = yield from track.turn(here, replaying(tasks, left_at, p.replay), keep=answer.keep)
        answer.offer(here)
    return here, left_at


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    rollout = min(p.budget, brief.horizon)
    return Outlook(
        bound=bound(brief, p, at),
        snapshots=most_held(brief, rollout, p.smooth),
        window=p.smooth,
        rollout=p.budget,
        decides=True,
        excludes=True,
        warnings=tuple(_warnings(brief, p, rollout)),
    )


def bound(brief: Brief, p: Params, at: Standing) -> Bound | None:
    """Upper limit: the limit on epochs, plus one discarded roll-out for each active sub-dataset.

    The most expensive order of exclusions is from the smallest sub-dataset to the largest.
    """
    clock, budget = Clock.of(brief), min(p.budget, brief.horizon)
    here, active = clock.instances(at.mixture), at.mixture.active
    sizes, gone = clock.sizes, [task for task in brief.tasks if task not in active]
    left = (brief.horizon - at.epoch) * here
    for task in sorted(active, key=sizes.__getitem__):
        left += budget * clock.instances(replaying(brief.tasks, gone, p.replay))
        gone.append(task)
    discarded = f"one discarded roll-out of {many(budget, 'epoch')} per active sub-dataset"
    why = f"the limit of {many(brief.horizon, 'epoch')}, plus {discarded}"
    if p.max_rollouts is not None:
        rollouts = max(1, p.max_rollouts - at.rollout + 1)
        if (few := rollouts * budget * here) < left:
            left, why = few, f"{many(rollouts, 'more roll-out')} of {many(budget, 'epoch')}"
    return Bound(instances=left, why=why) if math.isfinite(left) else None


def _warnings(brief: Brief, p: Params, rollout: float) -> Iterator[str]:
    if p.budget > brief.horizon:
        yield (
            f"method.budget: a roll-out may last {many(p.budget, 'epoch')}, but max_epochs ends the search at epoch "
            f"{brief.horizon:g}, so that no training can follow an exclusion. Fix: lower budget or raise max_epochs"
        )
    if p.smooth > 1 + rollout / brief.eval_every:
        yield (
            f"method.smooth: a mean over {many(p.smooth, 'evaluation')} is longer than a roll-out, which has "
            f"{math.ceil(rollout / brief.eval_every)}. Fix: lower smooth or eval_every"
        )


METHOD = Method(
    plan=plan, Params=Params, outlook=outlook, presets={"robust": {}, "release": RELEASE}, refits=True
)  # fmt: skip
