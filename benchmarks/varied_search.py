"""The method `varied`: mSFT's search with one thing changed (docs/results/search_variants.md).

Its presets are the variants; the first changes nothing, and makes the segments of `msft`. `search_variants.py`
registers it when it is run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Any, TypeAlias

from msft.core.averages import Averaging
from msft.core.clock import Clock
from msft.core.curves import Peak, peak
from msft.core.headroom import Measured, measured
from msft.core.method import Method, require
from msft.core.outlook import Outlook, Standing
from msft.core.rollout import Answer, Point, Track, curves, replaying, roll_out
from msft.core.vocabulary import ROOT, Brief, Outcome, Plan, Segment, Snapshot, Task
from msft.methods import msft


@dataclass(frozen=True, kw_only=True)
class Params(msft.Params):
    """mSFT's parameters, and what the variants change. The share that an excluded sub-dataset keeps is `replay`."""

    age_of: float | None = None
    """Window of the averaged weights, in epochs (`training.average`): the search rolls back to the peak minus the mean
    age of the averaged weights there. null: to the peak."""
    readmit: bool = False
    """Whether an excluded sub-dataset becomes active again, once, where its score has fallen since it was excluded."""
    sure: float = 0.0
    """A sub-dataset is excluded only if its smoothed score has fallen by more than so many standard errors of the
    paired difference over its validation items. Without two recorded items or more, each fall counts."""
    soup: bool = False
    """Whether the mean of the models from which the sub-datasets left, and of the last one for those that never left,
    is a candidate for the final model, each sub-dataset counting once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.age_of is None or self.age_of > 0, "age_of", "more than 0 epochs", self.age_of)
        require(self.sure >= 0, "sure", "0 standard errors or more", self.sure)


VARIANTS: dict[str, dict[str, Any]] = {
    "msft": {}, "floor0": {"replay": 0.0}, "floor25": {"replay": 0.25}, "earlier": {"age_of": 1.0},
    "readmit": {"readmit": True}, "tolerance1": {"sure": 1.0}, "tolerance2": {"sure": 2.0}, "soup": {"soup": True},
}  # fmt: skip
"""Name to what it changes. mSFT's own `replay` is 0.1: `msft` is also the variant with a floor of 0.1."""

Left: TypeAlias = dict[Task, Point]
"""The excluded sub-datasets, each with the point from which the search went on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the search decided at the end of a roll-out."""

    points: list[Point]
    active: tuple[Task, ...]
    out: tuple[Task, ...] = ()
    back: tuple[Task, ...] = ()
    here: Point
    """Where it went on."""


def plan(brief: Brief) -> Plan:
    answer = Answer(brief, (track := track_of(brief)).base)
    last, left, _ = yield from search(track, brief.params, answer)
    parts = Counter(left[task].snapshot if task in left else last.snapshot for task in brief.tasks)
    if brief.params.soup and len(parts) > 1:
        shares = [(snapshot, count / parts.total()) for snapshot, count in parts.items()]
        answer.offer((yield from track.blend(last, shares, score=brief.tasks, keep=answer.keep | {last.snapshot})))
    return answer.choose(last)


def track_of(brief: Brief) -> Track:
    """The track of a search, which records each item where a decision needs it."""
    return Track(replace(brief, record=True) if brief.params.sure else brief)


def search(track: Track, p: Params, answer: Answer) -> Generator[Segment, Outcome, tuple[Point, Left, list[Decision]]]:
    """mSFT's search (`msft.methods.msft.search`) with the changes of `p`."""
    tasks, here, left, returned = track.brief.tasks, track.base, Left(), set[Task]()
    decisions: list[Decision] = []
    steps = 0
    while (epochs := min(p.budget, track.left(here))) and len(decisions) != p.max_rollouts:
        active = tuple(task for task in tasks if task not in left)
        if not active:
            break
        mixture = replaying(tasks, left, p.replay)
        # A window as long as the roll-out keeps each of its snapshots: an earlier one than the peak is wanted.
        ticks = len(track.ticks(here, mixture, epochs))
        points = yield from roll_out(
            track, here, mixture, epochs, watch=active, at_end=tasks, keep=_parts(left, p), answer=answer,
            window=p.smooth if p.age_of is None else 2 * ticks + 1, reset_optimizer=p.optimizer == "reset",
        )  # fmt: skip
        begun, per_epoch = here.epoch, track.clock.steps_per_epoch(mixture)
        here = points[-1]
        answer.offer(here)
        peaks = {task: peak(curve, p.smooth) for task, curve in curves(points, active).items()}
        leavers = [task for task in active if _leaves(points, task, peaks[task], p)]
        out = _first(points, {task: peaks[task].tick for task in leavers}, p)
        if out:
            at = sorted(peaks[task].tick for task in out)
            tick = at[(len(at) - 1) // 2] if p.roll_back == "lower_median" else at[0]
            here = points[_earlier(points, tick, steps, per_epoch, track, p)]
            mixture = replaying(tasks, {*left, *out}, p.replay)
            here = yield from track.turn(here, mixture, keep=answer.keep | _parts(left, p))
            answer.offer(here)
            left |= dict.fromkeys(out, here)
        steps += round((here.epoch - begun) * per_epoch)
        back = [task for task in left if _returns(task, here, left, p) and task not in returned and track.left(here)]
        if back:
            returned |= set(back)
            left = {task: point for task, point in left.items() if task not in back}
            here = yield from track.turn(here, replaying(tasks, left, p.replay), keep=answer.keep | _parts(left, p))
        decisions.append(Decision(points=points, active=active, out=tuple(out), back=tuple(back), here=here))
    return here, left, decisions


def _leaves(points: list[Point], task: Task, found: Peak, p: Params) -> bool:
    falls = found.falls and (not p.sure or _surely(points, task, found.tick, p))
    return found.before_end and (falls or p.flat == "leaves")


def _surely(points: list[Point], task: Task, tick: int, p: Params) -> bool:
    """Whether the smoothed score falls from `tick` to the end by more than `sure` standard errors of the paired
    difference over validation items."""
    outcomes = [point.outcome for point in points]
    if not all(task in (kept or {}) for o in outcomes for kept in (o.items, o.metrics)):
        return True
    lost = fall(outcomes, task, tick, p.smooth)
    return len(lost) < 2 or fmean(lost) > p.sure * math.sqrt(variance(lost) / len(lost))


def fall(outcomes: list[Outcome], task: Task, tick: int, window: int, items: range | None = None) -> list[float]:
    """[items] the part of each validation item in the fall of the smoothed score from `tick` to the last outcome."""
    found = measured(outcomes, [task]).scores[task]
    if items is not None:
        found = Measured([[row[i] for i in items] for row in found.values], logs=found.logs)

    def smoothed(at: int) -> list[float]:
        around = range(len(outcomes))[max(0, at - window // 2) : at + window // 2 + 1]
        return [fmean(parts) for parts in zip(*(found.changes(i, 0) for i in around), strict=True)]

    return [a - b for a, b in zip(smoothed(tick), smoothed(len(outcomes) - 1), strict=True)]


def _first(points: list[Point], ticks: dict[Task, int], p: Params) -> list[Task]:
    """Those of the leavers that leave now, given the ticks of their peaks."""
    if not ticks:
        return []
    first = min(ticks.values())
    if p.ties == "first":
        return [min(task for task, tick in ticks.items() if tick == first)]
    latest = points[first].epoch + p.leave_within + 1e-9
    return [task for task, tick in ticks.items() if points[tick].epoch <= latest]


def _earlier(points: list[Point], tick: int, steps: int, per_epoch: int, track: Track, p: Params) -> int:
    """The tick that is nearest to the peak minus the mean age of the averaged weights there. `steps`: of the path to
    the start of the roll-out; `per_epoch`: steps in an epoch of it."""
    if p.age_of is None:
        return tick
    full = track.clock.steps_per_epoch(replaying(track.brief.tasks, (), 0.0))
    into = round((points[tick].epoch - points[0].epoch) * per_epoch)
    age = Averaging(p.age_of * full).age(steps + into) / per_epoch
    return min(range(tick + 1), key=lambda i: abs(points[i].epoch - (points[tick].epoch - age)))


def _returns(task: Task, here: Point, left: Left, p: Params) -> bool:
    return p.readmit and here.scores[task] < left[task].scores[task]


def _parts(left: Left, p: Params) -> set[Snapshot]:
    """The snapshots of the soup so far."""
    return {point.snapshot for point in left.values()} - {ROOT} if p.soup else set()


def outlook(brief: Brief, at: Standing) -> Outlook:
    """mSFT's, without the limits that a variant may exceed."""
    found = msft.outlook(brief, at)
    p: Params = brief.params
    held = found.snapshots
    if held is not None and p.soup:
        held += len(brief.tasks)
    if held is not None and p.age_of is not None:
        clock, mixture = Clock.of(brief), replaying(brief.tasks, (), 0.0)
        held += len(clock.ticks(mixture, clock.steps(mixture, min(p.budget, brief.horizon))))
    return replace(found, snapshots=held, bound=None if p.readmit else found.bound)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, presets=VARIANTS)
