"""mSFT: exclude what overfits first, roll back to its peak, go on with the rest (arXiv 2603.21606, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from msft.core.clock import Clock
from msft.core.curves import peak
from msft.core.method import Method, require
from msft.core.outlook import Bound, Outlook, Standing, most_held
from msft.core.rollout import Answer, Point, Track, curves, replaying, roll_out
from msft.core.vocabulary import Brief, Outcome, Plan, Segment, Task

RELEASE = {
    "budget": 10.0, "smooth": 1, "flat": "leaves", "leave_within": 0.0, "ties": "first", "roll_back": "earliest",
    "replay": 0.0, "optimizer": "reset", "max_rollouts": 10, "max_epochs": None, "average": "micro",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Params:
    """The parameters of design 1.1; the defaults are the robust preset."""

    budget: float = 4.0
    """Epochs per roll-out: the paper's C."""
    smooth: int = 5
    """Ticks in the centred mean under which a peak is read; odd."""
    flat: Literal["stays", "leaves"] = "stays"
    """Whether a sub-dataset that ends as high as it ever was stays."""
    leave_within: float = 1.0
    """Epochs: sub-datasets that peak about together leave together."""
    ties: Literal["all", "first"] = "all"
    """`first`: one exclusion per roll-out, the alphabetically first."""
    roll_back: Literal["lower_median", "earliest"] = "lower_median"
    """Which of the leavers' peaks to return to."""
    replay: float = 0.1
    """Share of each excluded sub-dataset that stays in the mixture, against forgetting."""
    optimizer: Literal["restore", "reset"] = "restore"
    """Adam's moments at a roll-back."""
    max_rollouts: int | None = None
    """None: only the horizon ends the search."""

    def __post_init__(self) -> None:
        require(self.budget > 0, "budget", "more than 0 epochs", self.budget)
        require(self.smooth >= 1 and self.smooth % 2 == 1, "smooth", "an odd number of ticks", self.smooth)
        require(self.leave_within >= 0, "leave_within", "0 epochs or more", self.leave_within)
        require(0 <= self.replay < 1, "replay", "a share from 0 to below 1", self.replay)
        require(self.max_rollouts is None or self.max_rollouts >= 1, "max_rollouts", "at least 1", self.max_rollouts)


def plan(brief: Brief) -> Plan:
    answer = Answer(brief, (track := Track(brief)).base)
    last, _ = yield from search(track, brief.params, answer)
    return answer.choose(last)


def search(track: Track, p: Params, answer: Answer) -> Generator[Segment, Outcome, tuple[Point, dict[Task, float]]]:
    """Algorithm 1. Returns the last point and the position at which each excluded sub-dataset left."""
    tasks, here, left_at = track.brief.tasks, track.base, dict[Task, float]()
    rollouts = 0
    while (epochs := min(p.budget, track.left(here))) and rollouts != p.max_rollouts:
        active = tuple(task for task in tasks if task not in left_at)
        if not active:
            break
        rollouts += 1
        points = yield from roll_out(
            track, here, replaying(tasks, left_at, p.replay), epochs, watch=active, at_end=tasks, window=p.smooth,
            keep=answer.keep, reset_optimizer=p.optimizer == "reset",
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
        warnings=tuple(_warnings(brief, p, rollout)),
    )


def bound(brief: Brief, p: Params, at: Standing) -> Bound | None:
    """The cost law: the limit on epochs, and one discarded roll-out for each sub-dataset that is still active.

    Dearest is that the smallest sub-datasets leave first.
    """
    clock, budget = Clock.of(brief), min(p.budget, brief.horizon)
    here, active = clock.instances(at.mixture), at.mixture.active
    sizes, gone = clock.sizes, [task for task in brief.tasks if task not in active]
    left = (brief.horizon - at.epoch) * here
    for task in sorted(active, key=sizes.__getitem__):
        left += budget * clock.instances(replaying(brief.tasks, gone, p.replay))
        gone.append(task)
    why = f"the limit of {brief.horizon:g} epochs, and one discarded roll-out of {budget:g} for each still active"
    if p.max_rollouts is not None:
        rollouts = max(1, p.max_rollouts - at.rollout + 1)
        if (few := rollouts * budget * here) < left:
            left, why = few, f"{rollouts} more roll-outs of {budget:g} epochs"
    return Bound(instances=left, why=why) if math.isfinite(left) else None


def _warnings(brief: Brief, p: Params, rollout: float) -> Iterator[str]:
    if p.budget > brief.horizon:
        yield (
            f"method.budget: a roll-out may last {p.budget:g} epochs, but the horizon ends the search at "
            f"{brief.horizon:g}: nothing can be excluded and trained on"
        )
    if p.smooth > 1 + rollout / brief.eval_every:
        yield (
            f"method.smooth: a mean over {p.smooth} ticks is longer than a roll-out, which has "
            f"{math.ceil(rollout / brief.eval_every)}: score more often or smooth less"
        )


METHOD = Method(plan=plan, Params=Params, outlook=outlook, presets={"robust": {}, "release": RELEASE})
