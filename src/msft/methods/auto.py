"""auto: plain fine-tuning with averaged weights, then a search, but only where one can pay.

The first roll-out is SFT's. It ends early only when the average falls and no sub-dataset still rises. Half of each
sub-dataset's validation items then choose: they give the headroom (`msft.core.headroom`), and with it whether to
search. The search is a second run, in which each sub-dataset falls to a small share at its own peak; it starts from the
snapshot of the first peak. The other half of the items compares its best model, once, with SFT's. So the method costs
at most twice SFT, and its final model is SFT's, bit for bit, unless items that chose nothing show the other to be
better.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from msft.core.curves import may_be_peaks
from msft.core.headroom import (
    SPLITS,
    WINDOW,
    Headroom,
    Items,
    Moments,
    evidence,
    gain,
    halves,
    headroom,
    measured,
    moments,
    recorded,
    standard_error,
    unreached,
)
from msft.core.method import Method, require, said_by
from msft.core.outlook import Outlook, Standing, most_held, passes
from msft.core.plain_words import many
from msft.core.rollout import Answer, Point, Track, depart
from msft.core.vocabulary import Brief, Mixture, Outcome, Plan, Segment, Snapshot, Task

DECIDING = "by the half of the validation items that decides"
SURE = 2.0
"""Standard errors that a gain must have to be called shown."""


@dataclass(frozen=True, kw_only=True)
class Params:
    floor: float = 0.15
    """Share of a sub-dataset that stays in the mixture of the search after its peak."""
    realised: float = 0.4
    """Share of the headroom that a search is expected to realise: 0.3 to 0.7 in search score, on small jobs."""
    peaks: Literal["own", "random"] = "own"
    """Whether the search excludes each sub-dataset at its own peak, or at one dealt to it at random: the control for a
    claim that peaks matter."""
    patience: float = 1.0
    """Epochs over which no sub-dataset may have risen before the first roll-out ends early."""

    def __post_init__(self) -> None:
        require(0 < self.floor < 1, "floor", "a share between 0 and 1", self.floor)
        require(0 < self.realised <= 1, "realised", "a share above 0, at most 1", self.realised)
        require(self.patience > 0, "patience", "more than 0 epochs", self.patience)


def plan(brief: Brief) -> Plan:
    return _plan(brief, [])


def explain(brief: Brief, outcomes: Sequence[Outcome]) -> list[str]:
    """What the method decided, in sentences, from the outcomes so far."""
    return said_by(_plan, brief, outcomes)


def _plan(brief: Brief, said: list[str]) -> Plan:
    track, p = Track(brief), brief.params
    answer = Answer(brief, track.base)
    points = yield from _first(track, p, answer, said)
    last = points[-1]
    found = evidence(((point.epoch, point.outcome) for point in points), brief.tasks)
    if found is None:
        said.append("It did not search: the validation items are too few, or their scores are not finite.")
        return answer.choose(last)
    parts = {task: halves(found.items(task), task, SPLITS) for task in brief.tasks}
    choosing = {task: part[0] for task, part in parts.items()}
    read = moments({task: m.exact(choosing[task]) for task, m in found.scores.items()})
    room = headroom(found, choosing)
    if not _worth(room, p):
        said.append(_declined(room, p, unreached(found, read)))
        return answer.choose(last)
    plain = answer.best if brief.select == "best" else last
    peaks = {t: points[tick] for t, tick in _dealt(read, p, brief).items()}
    best = yield from _search(track, p, peaks, plain, choosing)
    verdict = _compare(best, plain, brief.tasks, {task: part[1] for task, part in parts.items()})
    searched = len({point.snapshot for point in peaks.values()}) > 1
    said.append(f"{_begun(room) if searched else _nothing_to_exclude(best)} {verdict.said}")
    return best.snapshot if verdict.better else plain.snapshot


def _first(track: Track, p: Params, answer: Answer, said: list[str]) -> Generator[Segment, Outcome, list[Point]]:
    """SFT's roll-out; keeps the snapshots that a search may start from. Returns its points, the base model first."""
    brief, points, mixture = track.brief, [track.base], Mixture(tasks=track.brief.tasks)
    for stop in track.ticks(track.base, mixture, brief.horizon):
        here = yield from track.advance(
            points[-1], mixture, stop, score=brief.tasks, keep=answer.keep | _starts(points, brief),
            probes=recorded(brief),
        )  # fmt: skip
        points.append(here)
        answer.offer(here)
        if here.epoch < brief.horizon - 1e-6 and _over(points, brief, p.patience):
            said.append(
                f"The first roll-out ended at epoch {here.epoch:.2f}: the average had fallen, and no sub-dataset had "
                f"risen by more than its standard error for {many(p.patience, 'epoch')}."
            )
            break
    return points


def _starts(points: list[Point], brief: Brief) -> set[Snapshot]:
    """The snapshots that may still be the peak of a sub-dataset by the items that choose."""
    if any(point.outcome.items is None for point in points):
        return set()
    found = measured([point.outcome for point in points], brief.tasks)
    curves = {t: m.exact(halves(found.items(t), t, SPLITS)[0] or None) for t, m in found.scores.items()}
    return {points[i].snapshot for i in may_be_peaks(curves, WINDOW)}


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


def _worth(room: Headroom, p: Params) -> bool:
    """Whether what a search would realise can be shown, and both measures say that there is something to gain."""
    return p.realised * room.score > SURE * room.error and room.metric > 0


def _dealt(read: Moments, p: Params, brief: Brief) -> Mapping[Task, int]:
    """The tick at which the search excludes each sub-dataset."""
    if p.peaks == "own":
        return read.own
    ticks = list(read.own.values())
    random.Random(brief.seed).shuffle(ticks)
    return dict(zip(read.own, ticks, strict=True))


class _Candidate(Answer):
    """The best point of the search by the items that choose; SFT's final model is kept beside it."""

    def __init__(self, brief: Brief, first: Point, plain: Point, choosing: Mapping[Task, Items]) -> None:
        super().__init__(brief, first)
        # Evaluations of the search are limited to those of the first roll-out, so that it costs no more.
        self.ticks = False
        self._plain, self._choosing = plain, choosing
        self._score = self._chosen_by(first)

    def _chosen_by(self, point: Point) -> float:
        found = measured([point.outcome], self.brief.tasks)
        return fmean(m.curve(self._choosing[task])[0] for task, m in found.scores.items())

    def offer(self, point: Point) -> None:
        """Consider a point where every sub-dataset is scored, item by item."""
        if (score := self._chosen_by(point)) > self._score:
            self.best, self._score = point, score

    @property
    def keep(self) -> set[Snapshot]:
        return {self.best.snapshot, self._plain.snapshot}


def _search(
    track: Track, p: Params, peaks: Mapping[Task, Point], plain: Point, choosing: Mapping[Task, Items]
) -> Generator[Segment, Outcome, Point]:
    """The second run, from the first peak on; returns its best point."""
    start = min(peaks.values(), key=lambda point: point.epoch)
    best = _Candidate(track.brief, start, plain, choosing)
    yield from depart(
        track, start, {task: point.epoch for task, point in peaks.items()}, best,
        replay=p.floor, probes=recorded(track.brief),
    )  # fmt: skip
    return best.best


@dataclass(frozen=True, slots=True)
class _Verdict:
    better: bool
    said: str


def _compare(candidate: Point, plain: Point, tasks: Sequence[Task], items: Mapping[Task, Items]) -> _Verdict:
    """The candidate against SFT's final model, on items that chose neither of its moments."""
    if candidate.snapshot == plain.snapshot:
        return _Verdict(False, "The final model is that of plain fine-tuning.")
    found = measured([plain.outcome, candidate.outcome], tasks)
    after = Moments(dict.fromkeys(tasks, 1), 0)
    score, metric = gain(found.scores, after, items), gain(found.metrics, after, items)
    error = standard_error({task: m.changes(1, 0, items[task]) for task, m in found.metrics.items()})
    better = score > 0 and metric >= -error
    how = f"{_points(score)} by search score and {_points(metric)} by test metric"
    result = "is the final model" if better else "was discarded"
    return _Verdict(better, f"Its model {result}: on the validation items that chose nothing it scores {how} against "
                            "plain fine-tuning.")  # fmt: skip


def _begun(room: Headroom) -> str:
    gain = _points(room.score)
    return f"It searched: {DECIDING}, reading each sub-dataset at its own peak would gain {gain} (search score)."


def _nothing_to_exclude(at: Point) -> str:
    """Where a search has no roll-out of its own: its only point is an evaluation of plain fine-tuning."""
    return (
        f"It did not search: {DECIDING}, all sub-datasets are best at the same evaluation, at epoch {at.epoch:.4g}, so "
        "there is nothing to exclude."
    )


def _declined(room: Headroom, p: Params, rising: Sequence[Task]) -> str:
    """Why there was no search."""
    least = 100 * SURE * room.error
    shown = "less than 0.1 points" if least < 0.05 else f"{least:.1f} points at the least"
    why = (
        f"{DECIDING}, reading each sub-dataset at its own peak would gain {_points(room.score)} by search score and "
        f"{_points(room.metric)} by test metric; a search realises about {100 * p.realised:.0f} % of that, and these "
        f"items can show {shown}"
    )
    more = f" {len(rising)} of the sub-datasets have no peak yet: a longer run may show more." if rising else ""
    return f"It did not search: {why}.{more}"


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points".replace("-", "−")


def outlook(brief: Brief, at: Standing) -> Outlook:
    # The second run never trains more than the first.
    again = brief.horizon if at.rollout == 1 else 0.0
    held = most_held(brief, brief.horizon, WINDOW)
    return Outlook(bound=passes(brief, at, again=again), snapshots=held, window=WINDOW, excludes=True)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, explain=explain, averaged=True, own_choice=True)
