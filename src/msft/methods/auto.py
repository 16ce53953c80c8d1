"""auto: plain fine-tuning with averaged weights, then a second run, but only where one can pay.

The first run is SFT's. It ends early only when the average falls and no sub-dataset still rises. Its headroom
(`msft.core.headroom`) says whether there is a second run. That is trained from the base model, and each sub-dataset is
taught by the first run's model at its own peak (as by `self_distil`); or, with `second: exclude`, it is a search from
the first peak on, in which each sub-dataset falls to a small share at its own. The final model is the best evaluation
of both runs. So the method trains at most twice what SFT does, and without a second run its model is SFT's, bit for
bit.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from msft.core.curves import may_be_peaks, peak
from msft.core.headroom import (
    REALISED,
    SMALL,
    SURE,
    WINDOW,
    Headroom,
    evidence,
    headroom,
    moments,
    recorded,
    standard_error,
    unreached,
)
from msft.core.method import Method, require, said_by
from msft.core.outlook import Outlook, Standing, most_held, passes
from msft.core.plain_words import many
from msft.core.rollout import Answer, Point, Track, curves, depart
from msft.core.vocabulary import ROOT, TOP, Brief, Mixture, Outcome, Plan, Segment, Snapshot, Task, Teacher

BY_EXCLUSION = 0.5
"""As `REALISED`, for a second run that excludes."""


@dataclass(frozen=True, kw_only=True)
class Params:
    second: Literal["teach", "exclude"] = "teach"
    """The second run: trained from the base model, each sub-dataset taught by the model at its own peak; or a search,
    which begins at the first peak and excludes each sub-dataset at its own."""
    floor: float = 0.15
    """Share of a sub-dataset that stays in the mixture after its peak, with `second: exclude`."""
    realised: float | None = None
    """Share of the headroom that the second run is expected to realise in search score; with a smaller one, there is a
    second run less often. Null: 1 with `second: teach`, 0.5 with `second: exclude`. On small jobs, 1.0 to 1.5 was seen
    where it is taught, and 0.3 to 0.7 for a search."""
    peaks: Literal["own", "random"] = "own"
    """Whether the second run reads each sub-dataset at its own peak, or at one dealt to it at random: the control for a
    claim that peaks matter."""
    patience: float = 1.0
    """Epochs over which no sub-dataset may have risen before the first run ends early."""

    def __post_init__(self) -> None:
        require(0 < self.floor < 1, "floor", "a share between 0 and 1", self.floor)
        found = self.realised
        require(found is None or 0 < found <= 1, "realised", "a share above 0, at most 1, or null", found)
        require(self.patience > 0, "patience", "more than 0 epochs", self.patience)

    @property
    def expected(self) -> float:
        """The share of the headroom that the second run is expected to realise."""
        by_second = REALISED if self.second == "teach" else BY_EXCLUSION
        return by_second if self.realised is None else self.realised


def plan(brief: Brief) -> Plan:
    return _plan(brief, [])


def explain(brief: Brief, outcomes: Sequence[Outcome]) -> list[str]:
    """What the method decided, in sentences, from the outcomes so far."""
    return said_by(_plan, brief, outcomes)


def _plan(brief: Brief, said: list[str]) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    points = yield from _first(track, p, answer, said)
    last, plain = points[-1], answer.best
    peaks = _peaks(points, brief, p)
    if against := _against(points, peaks, brief, p):
        said.append(f"There was no second run: {against}")
        return answer.choose(last)
    said.append(_second(p))
    if p.second == "teach":
        end = yield from _teach(track, last.epoch, peaks, answer)
    else:
        start = min(peaks.values(), key=lambda point: point.epoch)
        times = {task: point.epoch for task, point in peaks.items()}
        end = yield from depart(track, start, times, answer, replay=p.floor, probes=recorded(brief))
    if brief.select == "best" and answer.best is plain and plain.snapshot != ROOT:
        said.append("The second run is not better on validation: the final model is of the first, plain fine-tuning.")
    return answer.choose(end)


def _first(track: Track, p: Params, answer: Answer, said: list[str]) -> Generator[Segment, Outcome, list[Point]]:
    """SFT's roll-out; keeps the snapshots that may be peaks. Returns its points, the base model first."""
    brief, points, mixture = track.brief, [track.base], Mixture(tasks=track.brief.tasks)
    for stop in track.ticks(track.base, mixture, brief.horizon):
        here = yield from track.advance(
            points[-1], mixture, stop, score=brief.tasks, keep=answer.keep | _may_be_peaks(points, brief),
            probes=recorded(brief),
        )  # fmt: skip
        points.append(here)
        answer.offer(here)
        if here.epoch < brief.horizon - 1e-6 and _over(points, brief, p.patience):
            said.append(
                f"The first run ended at epoch {here.epoch:.2f}: the average had fallen, and no sub-dataset had "
                f"risen by more than its standard error for {many(p.patience, 'epoch')}."
            )
            break
    return points


def _may_be_peaks(points: list[Point], brief: Brief) -> set[Snapshot]:
    """Those that a second run may need; without items there is none."""
    if any(point.outcome.items is None for point in points):
        return set()
    return {points[i].snapshot for i in may_be_peaks(curves(points, brief.tasks), WINDOW)}


def _over(points: list[Point], brief: Brief, patience: float) -> bool:
    """Whether the average has fallen beyond doubt since its best, `patience` epochs ago or more, and no sub-dataset has
    risen beyond its noise since then. With few items nothing is beyond doubt, and the roll-out goes on."""
    found = evidence(((point.epoch, point.outcome) for point in points), brief.tasks)
    if found is None:
        return False
    now = len(points) - 1
    before = [i for i, point in enumerate(points) if point.epoch <= points[now].epoch - patience + 1e-9]
    best = moments({task: m.exact() for task, m in found.scores.items()}).common
    if not before or best > before[-1]:
        return False
    lost = {task: m.changes(now, best) for task, m in found.scores.items()}
    if fmean(map(fmean, lost.values())) >= -SURE * standard_error(lost):
        return False
    changes = [m.changes(now, before[-1]) for m in found.scores.values()]
    return all(fmean(each) <= (variance(each) / len(each)) ** 0.5 for each in changes)


def _peaks(points: list[Point], brief: Brief, p: Params) -> dict[Task, Point]:
    """The point of the first run at which the second one reads each sub-dataset."""
    found = {task: points[peak(curve, WINDOW).tick] for task, curve in curves(points, brief.tasks).items()}
    if p.peaks == "own":
        return found
    dealt = list(found.values())
    random.Random(brief.seed).shuffle(dealt)
    return dict(zip(found, dealt, strict=True))


def _against(points: list[Point], peaks: Mapping[Task, Point], brief: Brief, p: Params) -> str:
    """What speaks against a second run, in a sentence; empty if nothing does."""
    found = evidence(((point.epoch, point.outcome) for point in points), brief.tasks)
    if found is None:
        return "the validation items are too few, or their scores are not finite."
    if len({point.snapshot for point in peaks.values()}) == 1:
        return f"all sub-datasets are best at the same evaluation, at epoch {next(iter(peaks.values())).epoch:.4g}."
    room = headroom(found)
    if room.pays(p.expected):
        return ""
    rising = unreached(found, moments({task: m.exact() for task, m in found.scores.items()}))
    return _too_little(room, p, rising)


def _teach(
    track: Track, epochs: float, peaks: Mapping[Task, Point], answer: Answer
) -> Generator[Segment, Outcome, Point]:
    """The second run, from the base model on, as long as the first; the models at the peaks teach it."""
    here, brief = track.base, track.brief
    mixture, teacher = Mixture(tasks=brief.tasks), Teacher(snapshots=tuple(peaks[t].snapshot for t in brief.tasks))
    for stop in track.ticks(here, mixture, epochs):
        here = yield from track.advance(
            here, mixture, stop, score=brief.tasks, keep=answer.keep, teacher=teacher, probes=recorded(brief)
        )
        answer.offer(here)
    return here


def _second(p: Params) -> str:
    whose = "its own peak" if p.peaks == "own" else "a peak that was dealt to it at random"
    how = "taught each sub-dataset by the model at" if p.second == "teach" else "excluded each sub-dataset at"
    return f"A second run {how} {whose}."


def _too_little(room: Headroom, p: Params, rising: Sequence[Task]) -> str:
    if not room.error:
        return "no validation item differs between the evaluations that are best for a sub-dataset and for the average."
    least = 100 * SURE * room.error
    shown = "less than 0.1 points" if least < 0.05 else f"{least:.1f} points at the least"
    more = f" {len(rising)} of the sub-datasets have no peak yet: a longer run may show more." if rising else ""
    may_be = p.second == "teach" and room.score + SURE * room.error >= SMALL
    hidden = " A gain may hide behind so few items; method: self_distil has a second run in any case." if may_be else ""
    part = "" if p.expected == 1 else f"a second run is expected to realise {100 * p.expected:.0f} % of that, and "
    return (
        f"reading each sub-dataset at its own peak would gain {_points(room.score)} by search score and "
        f"{_points(room.metric)} by test metric; {part}the validation items can show {shown}.{more}{hidden}"
    )


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points".replace("-", "−")


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    # The second run never trains more than the first.
    again = brief.horizon if at.rollout == 1 else 0.0
    bound, held = passes(brief, at, again=again), most_held(brief, brief.horizon, WINDOW)
    if p.second == "exclude":
        return Outlook(bound=bound, snapshots=held, window=WINDOW, excludes=True)
    # Beside the teachers, which read every training example once, the best and the latest model are held.
    held = None if held is None else held + 1
    return Outlook(bound=bound, snapshots=held, window=WINDOW, probed_epochs=1.0, soft_targets=1 + TOP)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, explain=explain, averaged=True, refits=True)
