"""auto: plain fine-tuning with averaged weights, then a second run, but only where one can pay.

The first run is SFT's. It ends early only when the average falls and no sub-dataset still rises. Half of each
sub-dataset's validation items then choose: they give the headroom (`msft.core.headroom`), and with it whether there is
a second run. That is trained from the base model, and each sub-dataset is taught by the first run's model at its own
peak (as by `self_distil`); or, with `second: exclude`, it is a search from the first peak on, in which each sub-dataset
falls to a small share at its own. The other half of the items compares its best model, once, with SFT's. So the method
trains at most twice what SFT does, and its final model is SFT's, bit for bit, unless items that chose nothing show the
other to be better.
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
from msft.core.vocabulary import TOP, Brief, Mixture, Outcome, Plan, Segment, Snapshot, Task, Teacher

DECIDING = "by the half of the validation items that decides"
SURE = 2.0
"""Standard errors that a gain must have to be called shown."""


REALISED = {"teach": 0.8, "exclude": 0.4}
"""Share of the headroom that a second run was seen to realise in search score, on small jobs."""


@dataclass(frozen=True, kw_only=True)
class Params:
    second: Literal["teach", "exclude"] = "teach"
    """The second run: trained from the base model, each sub-dataset taught by the model at its own peak; or a search,
    which begins at the first peak and excludes each sub-dataset at its own."""
    floor: float = 0.15
    """Share of a sub-dataset that stays in the mixture after its peak, with `second: exclude`."""
    realised: float | None = None
    """Share of the headroom that the second run is expected to realise; None: 0.8 where it is taught, 0.4 for a
    search."""
    peaks: Literal["own", "random"] = "own"
    """Whether the second run reads each sub-dataset at its own peak, or at one dealt to it at random: the control for a
    claim that peaks matter."""
    patience: float = 1.0
    """Epochs over which no sub-dataset may have risen before the first run ends early."""

    def __post_init__(self) -> None:
        require(0 < self.floor < 1, "floor", "a share between 0 and 1", self.floor)
        require(0 < self.expected <= 1, "realised", "a share above 0, at most 1", self.realised)
        require(self.patience > 0, "patience", "more than 0 epochs", self.patience)

    @property
    def expected(self) -> float:
        return REALISED[self.second] if self.realised is None else self.realised


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
        said.append("There was no second run: the validation items are too few, or their scores are not finite.")
        return answer.choose(last)
    parts = {task: halves(found.items(task), task, SPLITS) for task in brief.tasks}
    choosing = {task: part[0] for task, part in parts.items()}
    read = moments({task: m.exact(choosing[task]) for task, m in found.scores.items()})
    room = headroom(found, choosing)
    peaks = {task: points[tick] for task, tick in _dealt(read, p, brief).items()}
    if len({point.snapshot for point in peaks.values()}) == 1:
        said.append(_together(points[read.common]))
        return answer.choose(last)
    if not _worth(room, p):
        said.append(_declined(room, p, unreached(found, read)))
        return answer.choose(last)
    plain = answer.best if brief.select == "best" else last
    best = _Candidate(brief, _first_of(peaks) if p.second == "exclude" else track.base, plain, choosing)
    if p.second == "teach":
        yield from _teach(track, last.epoch, peaks, best)
    else:
        yield from _exclude(track, p, peaks, best)
    verdict = _compare(best.best, plain, brief.tasks, {task: part[1] for task, part in parts.items()})
    said.append(f"{_begun(room, p)} {verdict.said}")
    return best.best.snapshot if verdict.better else plain.snapshot


def _first(track: Track, p: Params, answer: Answer, said: list[str]) -> Generator[Segment, Outcome, list[Point]]:
    """SFT's roll-out; keeps the snapshots that may be peaks. Returns its points, the base model first."""
    brief, points, mixture = track.brief, [track.base], Mixture(tasks=track.brief.tasks)
    for stop in track.ticks(track.base, mixture, brief.horizon):
        here = yield from track.advance(
            points[-1], mixture, stop, score=brief.tasks, keep=answer.keep | _peaks(points, brief),
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


def _peaks(points: list[Point], brief: Brief) -> set[Snapshot]:
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
    """Whether what a second run would realise can be shown, and the test metric does not speak against it. Of a search,
    which was not seen to gain in the metric, it has to promise a gain there too."""
    agrees = room.metric > 0 if p.second == "exclude" else room.metric >= -room.metric_error
    return agrees and p.expected * room.score > SURE * room.error


def _dealt(read: Moments, p: Params, brief: Brief) -> Mapping[Task, int]:
    """The tick of the first run at which the second one reads each sub-dataset."""
    if p.peaks == "own":
        return read.own
    ticks = list(read.own.values())
    random.Random(brief.seed).shuffle(ticks)
    return dict(zip(read.own, ticks, strict=True))


class _Candidate(Answer):
    """The best point of the second run by the items that choose; SFT's final model is kept beside it."""

    def __init__(self, brief: Brief, first: Point, plain: Point, choosing: Mapping[Task, Items]) -> None:
        super().__init__(brief, first)
        # A search is evaluated only where it excludes, so that it costs no more than the first run.
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


def _first_of(peaks: Mapping[Task, Point]) -> Point:
    return min(peaks.values(), key=lambda point: point.epoch)


def _teach(
    track: Track, epochs: float, peaks: Mapping[Task, Point], best: _Candidate
) -> Generator[Segment, Outcome, None]:
    """The second run, from the base model on, as long as the first; the models at the peaks teach it."""
    here, brief = track.base, track.brief
    mixture, teacher = Mixture(tasks=brief.tasks), Teacher(snapshots=tuple(peaks[t].snapshot for t in brief.tasks))
    for stop in track.ticks(here, mixture, epochs):
        here = yield from track.advance(
            here, mixture, stop, score=brief.tasks, keep=best.keep, teacher=teacher, probes=recorded(brief)
        )
        best.offer(here)


def _exclude(
    track: Track, p: Params, peaks: Mapping[Task, Point], best: _Candidate
) -> Generator[Segment, Outcome, None]:
    """The second run as a search, from the first peak on."""
    yield from depart(
        track, _first_of(peaks), {task: point.epoch for task, point in peaks.items()}, best,
        replay=p.floor, probes=recorded(track.brief),
    )  # fmt: skip


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


def _begun(room: Headroom, p: Params) -> str:
    whose = "its own peak" if p.peaks == "own" else "a peak that was dealt to it at random"
    how = "taught each sub-dataset by the model at" if p.second == "teach" else "excluded each sub-dataset at"
    gain = f"{DECIDING}, reading each at its own peak would gain {_points(room.score)} (search score)"
    return f"A second run {how} {whose}: {gain}."


def _together(at: Point) -> str:
    where = f"at the same evaluation, at epoch {at.epoch:.4g}"
    return f"There was no second run: {DECIDING}, all sub-datasets are best {where}."


def _declined(room: Headroom, p: Params, rising: Sequence[Task]) -> str:
    """Why there was no second run."""
    least = 100 * SURE * room.error
    shown = "less than 0.1 points" if least < 0.05 else f"{least:.1f} points at the least"
    why = (
        f"{DECIDING}, reading each sub-dataset at its own peak would gain {_points(room.score)} by search score and "
        f"{_points(room.metric)} by test metric; a second run realises about {100 * p.expected:.0f} % of that, and "
        f"these items can show {shown}"
    )
    more = f" {len(rising)} of the sub-datasets have no peak yet: a longer run may show more." if rising else ""
    return f"There was no second run: {why}.{more}"


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points".replace("-", "−")


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    # The second run never trains more than the first.
    again = brief.horizon if at.rollout == 1 else 0.0
    bound, held = passes(brief, at, again=again), most_held(brief, brief.horizon, WINDOW)
    if p.second == "exclude":
        return Outlook(bound=bound, snapshots=held, window=WINDOW, excludes=True)
    # Beside the teachers, which read every training example once, the best models of both runs are held.
    held = None if held is None else held + 1
    return Outlook(bound=bound, snapshots=held, window=WINDOW, probed_epochs=1.0, soft_targets=1 + TOP)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, explain=explain, averaged=True, own_choice=True)
