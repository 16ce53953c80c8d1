"""Generators that methods share to turn a trajectory into segments (design 2.1).

A method has one `Track`. It numbers roll-outs, records positions, and turns "train this mixture from here to there"
into a `Segment`; `roll_out` runs a whole roll-out from tick to tick. Use both with `yield from`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from msft.core.clock import Clock
from msft.core.curves import average, may_be_peaks
from msft.core.headroom import RECORD
from msft.core.vocabulary import ROOT, Anneal, Brief, Mixture, Outcome, Probe, Segment, Snapshot, Task, Teacher, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point on a trajectory: a snapshot, its position in epochs, and its scores."""

    snapshot: Snapshot
    epoch: float
    scores: Mapping[Task, float]
    """The search scores that the method requested. Its decisions use only these."""
    outcome: Outcome
    """Everything that was measured; with `score_excluded: tick` this includes scores that were not requested."""


Step: TypeAlias = Generator[Segment, Outcome, Point]


class Track:
    """The trajectory of one method. All segments are made here."""

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.clock = Clock.of(brief)
        self.base = Point(snapshot=ROOT, epoch=0.0, scores=brief.base.scores, outcome=brief.base)
        self.rollout = 0
        self._tip: Snapshot | None = None
        self._mixture = Mixture(tasks=brief.tasks)
        self._step = 0

    def _continues(self, here: Point, mixture: Mixture) -> bool:
        return here.snapshot == self._tip and mixture.tasks == self._mixture.tasks

    def start(self, here: Point, mixture: Mixture) -> int:
        """The step of the roll-out at which training `mixture` from `here` starts; 0 if this begins a roll-out."""
        return self._step if self._continues(here, mixture) else 0

    def ticks(self, here: Point, mixture: Mixture, epochs: float) -> list[int]:
        """The ticks of the next `epochs` epochs, as steps since the start of their roll-out."""
        start = self.start(here, mixture)
        return [start + tick for tick in self.clock.ticks(mixture, self.clock.steps(mixture, epochs))]

    def left(self, here: Point) -> float:
        """Epochs from `here` to the limit on epochs; 0 if only a rounding error remains."""
        left = self.brief.horizon - here.epoch
        return left if left > 1e-6 else 0.0

    def _scored(self, score: tuple[Task, ...], *, chooses: bool, why: Why) -> tuple[Task, ...]:
        """What to score where a method asks for `score`: everything with `score_excluded: tick`; where all sub-datasets
        are scored and the point may become the final model, the aggregate too."""
        tasks, aggregate = self.brief.tasks, self.brief.aggregate
        if score and self.brief.score_excluded == "tick" and why != "refit":
            score = tasks
        if aggregate is None or not chooses or not set(tasks) <= set(score):
            return score
        return (*score, aggregate)

    def _probes(self, score: tuple[Task, ...], probes: Iterable[Probe] = ()) -> frozenset[Probe]:
        return frozenset({*probes, *(RECORD if self.brief.record and score else ())})

    def advance(
        self,
        here: Point,
        mixture: Mixture,
        stop: int,
        *,
        score: tuple[Task, ...],
        keep: Iterable[Snapshot] = (),
        probes: Iterable[Probe] = (),
        reset_optimizer: bool = False,
        anneal: Anneal | None = None,
        teacher: Teacher | None = None,
        why: Why = "search",
        chooses: bool = True,
    ) -> Step:
        """Train from `here` until step `stop` of the roll-out, then score the sub-datasets in `score`.

        Additional scores (`score_excluded: tick`) are not in the point's scores, and so affect no exclusion.

        A roll-out begins (its number increases, its steps count from 0) if the sub-datasets change or if `here` is
        not the end of the last segment. `reset_optimizer` takes effect only then. The steps of `anneal` are counted as
        `stop` is: `start` returns the first. `chooses`: whether the point may become the final model, so that the
        aggregate is scored too.
        """
        start = self.start(here, mixture)
        if not self._continues(here, mixture):
            self.rollout += 1
        scored = self._scored(score, chooses=chooses, why=why)
        segment = Segment(
            parent=here.snapshot,
            rollout=self.rollout,
            mixture=mixture,
            start=start,
            stop=stop,
            epoch=here.epoch,
            score=scored,
            probes=self._probes(score, probes),
            keep=frozenset(keep) - {here.snapshot, ROOT},
            reset_optimizer=reset_optimizer and start == 0,
            anneal=anneal,
            teacher=teacher,
            why=why,
        )
        outcome = yield segment
        self._tip, self._mixture, self._step = outcome.snapshot, mixture, stop
        epoch = here.epoch + self.clock.epochs(mixture, stop - start)
        scores = {task: outcome.scores[task] for task in (*score, *self._aggregate(outcome))}
        return Point(snapshot=outcome.snapshot, epoch=epoch, scores=scores, outcome=outcome)

    def blend(
        self,
        here: Point,
        parts: Iterable[tuple[Snapshot, float]],
        *,
        score: tuple[Task, ...],
        keep: Iterable[Snapshot] = (),
        why: Why = "candidate",
        ties: float | None = None,
    ) -> Step:
        """Make a snapshot whose weights are the weighted mean of those of `parts`, at the position of `here`.

        With `ties`, a density, they are merged by TIES instead. The weights of `parts` are above 0 and sum to 1.
        Training may continue from `here` afterwards as if nothing had happened; from the blend, it begins a roll-out.
        """
        self.rollout = max(1, self.rollout)
        outcome = yield Segment(
            parent=here.snapshot,
            rollout=self.rollout,
            mixture=self._mixture,
            start=0,
            stop=0,
            epoch=here.epoch,
            score=self._scored(score, chooses=True, why=why),
            probes=self._probes(score),
            keep=frozenset(keep) - {here.snapshot, ROOT},
            blend=tuple(parts),
            why=why,
            ties=ties,
        )
        scores = {task: outcome.scores[task] for task in (*score, *self._aggregate(outcome))}
        return Point(snapshot=outcome.snapshot, epoch=here.epoch, scores=scores, outcome=outcome)

    def _aggregate(self, outcome: Outcome) -> list[Task]:
        """The aggregate, where it was scored."""
        name = self.brief.aggregate
        return [name] if name is not None and name in outcome.scores else []

    def turn(self, here: Point, mixture: Mixture, *, keep: Iterable[Snapshot] = ()) -> Step:
        """A decision: train `mixture` from `here` on. Begins a roll-out and scores what is not yet scored at `here`.

        The segment is yielded even if there is nothing to score or to train, so that the journal records every
        decision.
        """
        self.rollout += 1
        known = {**here.outcome.scores, **here.scores}
        unscored = tuple(task for task in self.brief.names if task not in known)
        outcome = yield Segment(
            parent=here.snapshot,
            rollout=self.rollout,
            mixture=mixture,
            start=0,
            stop=0,
            epoch=here.epoch,
            score=unscored,
            probes=self._probes(unscored),
            keep=frozenset(keep) - {here.snapshot, ROOT},
        )
        self._tip, self._mixture, self._step = here.snapshot, mixture, 0
        return replace(here, scores={**known, **outcome.scores})


class Answer:
    """Selects the final model: the earliest of the best fully scored points; with `select: last`, the last point.

    The best point has the best average over the sub-datasets or, if there is an aggregate, the best score of it.
    """

    def __init__(self, brief: Brief, first: Point) -> None:
        self.brief = brief
        self.best = first
        self.ticks = brief.candidates == "ticks"
        """Whether every tick is a candidate, not only the points where the search decides."""
        self._most = self._average(first.scores)

    def _average(self, scores: Mapping[Task, float]) -> Fraction | float:
        if self.brief.aggregate is not None:
            return average(scores, (self.brief.aggregate,))
        weights = self.brief.validation_sizes if self.brief.average == "micro" else None
        return average(scores, self.brief.tasks, weights)

    def offer(self, point: Point) -> None:
        """Consider a point; one that is not scored on all sub-datasets is ignored."""
        scores = {**point.outcome.scores, **point.scores} if self.ticks else point.scores
        if set(self.brief.names) <= scores.keys() and (found := self._average(scores)) > self._most:
            self.best, self._most = point, found

    def passes(self, point: Point) -> None:
        """Consider a tick at which the search decides nothing: a candidate only where every tick is one."""
        if self.ticks:
            self.offer(point)

    @property
    def keep(self) -> set[Snapshot]:
        return {self.best.snapshot} if self.brief.select == "best" else set()

    def choose(self, last: Point) -> Snapshot:
        return self.best.snapshot if self.brief.select == "best" else last.snapshot


def roll_out(
    track: Track,
    here: Point,
    mixture: Mixture,
    epochs: float,
    *,
    watch: tuple[Task, ...],
    at_end: tuple[Task, ...],
    window: int | None = 1,
    keep: Iterable[Snapshot] = (),
    answer: Answer | None = None,
    until: Callable[[list[Point]], bool] = lambda points: False,
    reset_optimizer: bool = False,
    why: Why = "search",
) -> Generator[Segment, Outcome, list[Point]]:
    """Train one roll-out from tick to tick; returns its points, `here` (tick 0) first.

    The sub-datasets in `watch` are scored at every tick, those in `at_end` at the last. The roll-out keeps the
    snapshots in `keep`, and those that may still become the peak of a sub-dataset in `watch`, smoothed over `window`
    ticks (None: it keeps no peaks). Ticks are offered to `answer` where they are candidates for the final model, and
    its best point so far is kept. The roll-out ends early when `until(points so far)` returns True.
    """
    points = [here]
    kept = set(keep)
    ticks = track.ticks(here, mixture, epochs)
    for stop in ticks:
        peaks = may_be_peaks(curves(points, watch), window) if window else set()
        point = yield from track.advance(
            points[-1],
            mixture,
            stop,
            score=at_end if stop == ticks[-1] else watch,
            keep=kept | {points[i].snapshot for i in peaks} | (answer.keep if answer else set()),
            reset_optimizer=reset_optimizer,
            why=why,
            chooses=stop == ticks[-1] or (answer is not None and answer.ticks),
        )
        points.append(point)
        if answer:
            answer.passes(point)
        if until(points):
            break
    return points


def curves(points: list[Point], tasks: Iterable[Task]) -> dict[Task, list[float]]:
    """The score curve of each of these sub-datasets over the points of a roll-out."""
    return {task: [point.scores[task] for point in points] for task in tasks}


def depart(
    track: Track,
    here: Point,
    leaves: Mapping[Task, float],
    answer: Answer,
    *,
    replay: float = 0.0,
    probes: Iterable[Probe] = (),
) -> Generator[Segment, Outcome, Point]:
    """Train from `here` and exclude each sub-dataset at its epoch in `leaves`; the last of these epochs ends training.

    All sub-datasets are scored at each exclusion and, where ticks are candidates for the final model, at each tick.
    Roll-outs end on whole steps: an epoch that has passed by then is that of the exclusion before it.
    """
    tasks = track.brief.tasks
    for epoch in sorted(set(leaves.values())):
        if epoch <= here.epoch + 1e-6:
            continue
        mixture = replaying(tasks, tuple(task for task in tasks if leaves[task] < epoch), replay)
        if mixture.shares is not None:
            # Only the shares change, so `advance` would continue the current epoch, whose content must not change.
            here = yield from track.turn(here, mixture, keep=answer.keep)
        ticks = track.ticks(here, mixture, epoch - here.epoch)
        for stop in ticks if answer.ticks else ticks[-1:]:
            here = yield from track.advance(here, mixture, stop, score=tasks, keep=answer.keep, probes=probes)
            answer.offer(here)
    return here


def replaying(tasks: tuple[Task, ...], excluded: Iterable[Task], replay: float) -> Mixture:
    """The mixture without the excluded sub-datasets; with `replay` > 0, it keeps that share of each of them."""
    gone = set(excluded)
    if replay == 0 or not gone:
        return Mixture(tasks=tuple(task for task in tasks if task not in gone))
    shares = tuple(replay if task in gone else 1.0 for task in tasks)
    return Mixture(tasks=tasks, shares=shares, replayed=frozenset(gone))
