"""Small methods that use each word of the vocabulary: no method of the package uses all of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from msft.core.method import Method
from msft.core.rollout import Answer, Track, replaying, roll_out
from msft.core.vocabulary import ROOT, Anneal, Brief, Mixture, Plan, Probe, Task, Teacher


def halves(brief: Brief) -> Plan:
    """Trains half of each sub-dataset but the first an epoch; then the first is replayed in full, and decides nothing.

    Neither is what a share below 1 means where `replayed` says nothing.
    """
    track, rest = Track(brief), brief.tasks[1:]
    mixture = Mixture(tasks=brief.tasks, shares=(1.0, *(0.5 for _ in rest)))
    replayed = replace(mixture, replayed=frozenset(brief.tasks[:1]))
    per_epoch = track.clock.steps_per_epoch(mixture)
    here = yield from track.advance(track.base, mixture, per_epoch, score=brief.tasks)
    here = yield from track.advance(here, replayed, 2 * per_epoch, score=rest)
    here = yield from track.turn(here, mixture)
    here = yield from track.advance(here, mixture, per_epoch, score=brief.tasks)
    return here.snapshot


def weighs(brief: Brief) -> Plan:
    """Every epoch, the sub-dataset whose validation loss fell least counts half, the one whose fell most twice."""
    track = Track(brief)
    answer, here = Answer(brief, track.base), track.base
    before: Mapping[Task, float] = {}
    while left := track.left(here):
        now = here.outcome.loss or {}
        order = sorted(brief.tasks, key=lambda task: before.get(task, 0.0) - now.get(task, 0.0))
        heavy = {order[0]: 0.5} | {order[-1]: 2.0}
        before = now
        mixture = Mixture(tasks=brief.tasks, loss_weights=tuple(heavy.get(task, 1.0) for task in brief.tasks))
        for stop in track.ticks(here, mixture, min(1.0, left)):
            here = yield from track.advance(
                here, mixture, stop, score=brief.tasks, keep=answer.keep, probes=[Probe.LOSS]
            )
            answer.offer(here)
    return answer.choose(here)


def decays(brief: Brief) -> Plan:
    """A constant rate; every two epochs, a branch over which the rate falls shows how good the model would be then.

    The first sub-dataset is excluded half-way, without a roll-back.
    """
    track = Track(brief)
    answer, here, mixture = Answer(brief, track.base), track.base, Mixture(tasks=brief.tasks)
    end = here
    for part in range(4):
        if part == 2:
            mixture = replaying(brief.tasks, brief.tasks[:1], 0.5)
            here = yield from track.turn(here, mixture, keep=answer.keep)
        for stop in track.ticks(here, mixture, 2.0):
            here = yield from track.advance(here, mixture, stop, score=mixture.active, keep=answer.keep)
        first = track.start(here, mixture)
        last = first + 1 + track.clock.steps(mixture, 0.5)
        fall = Anneal(start=first, stop=last, to=0.1, shape="cosine")
        end = here
        for stop in (first + 1, last):
            end = yield from track.advance(
                end, mixture, stop, score=brief.tasks, keep=answer.keep | {here.snapshot}, anneal=fall,
                why="final" if part == 3 else "candidate",
            )  # fmt: skip
        answer.offer(end)
    return answer.choose(end)


def averages(brief: Brief) -> Plan:
    """Plain fine-tuning; at every tick, the mean of all ticks so far, as a chain of means of two."""
    track = Track(brief)
    answer, here, mixture = Answer(brief, track.base), track.base, Mixture(tasks=brief.tasks)
    mean = here
    for count, stop in enumerate(track.ticks(here, mixture, brief.horizon), 1):
        keep = answer.keep | {mean.snapshot}
        here = yield from track.advance(here, mixture, stop, score=brief.tasks, keep=keep)
        if count == 1:
            mean = here
            continue
        parts = ((mean.snapshot, 1 - 1 / count), (here.snapshot, 1 / count))
        mean = yield from track.blend(here, parts, score=brief.tasks, keep=answer.keep)
        answer.offer(mean)
    return answer.choose(mean)


def soups(brief: Brief) -> Plan:
    """The mean of a roll-out's ticks and the base model, trained on; at the end, that again with the base model, and
    both merged by TIES."""
    track = Track(brief)
    mixture = Mixture(tasks=brief.tasks)
    points = yield from roll_out(
        track, track.base, mixture, 2.0, watch=brief.tasks, at_end=brief.tasks, window=2 * 10**6 + 1
    )
    # At the position of a tick that is no part of it.
    parts = [(point.snapshot, 1 / (len(points) - 1)) for point in points if point is not points[1]]
    soup = yield from track.blend(points[1], parts, score=brief.tasks, why="search")
    anew = yield from track.advance(soup, mixture, 3, score=brief.tasks, keep={soup.snapshot})
    keep = {soup.snapshot}
    less = yield from track.blend(anew, [(ROOT, 0.25), (anew.snapshot, 0.75)], score=brief.tasks, keep=keep)
    parts = [(soup.snapshot, 0.5), (less.snapshot, 0.5)]
    end = yield from track.blend(less, parts, score=brief.tasks, why="final", ties=0.4)
    return end.snapshot


def teaches(brief: Brief) -> Plan:
    """Each epoch is a roll-out, taught by the model from which the epoch before it began: the second by the base
    model, and the third by it too, on some sub-datasets; in the last, some are taught by the base model."""
    track = Track(brief)
    answer, here, mixture = Answer(brief, track.base), track.base, Mixture(tasks=brief.tasks)
    teacher, before = None, ROOT
    for epoch in range(4):
        start = here
        if epoch == 2:
            mixture = Mixture(tasks=brief.tasks[: max(1, len(brief.tasks) - 1)])
        if epoch:
            each = {1: (before,), 2: (ROOT,), 3: (before, *[ROOT] * (len(mixture.tasks) - 1))}[epoch]
            teacher = Teacher(snapshots=each, share=0.4, top=3)
            here = yield from track.turn(here, mixture, keep=answer.keep | {before})
        for stop in track.ticks(here, mixture, 1.0):
            keep = answer.keep | {start.snapshot}
            here = yield from track.advance(here, mixture, stop, score=brief.tasks, keep=keep, teacher=teacher)
            answer.offer(here)
        before = start.snapshot
    return answer.choose(here)


def wanders(brief: Brief) -> Plan:
    """Trains from and blends whatever it happens to keep: a different graph of ancestors for every seed."""
    draw, track = random.Random(brief.seed), Track(brief)
    points, taught = [track.base], None
    for _ in range(16):
        here = draw.choice(points)
        keep = {point.snapshot for point in points} | set(taught.snapshots if taught else ())
        if len(points) > 1 and draw.random() < 0.45:
            chosen = draw.sample(points, draw.randint(1, min(3, len(points))))
            weights = [0.1 + draw.random() for _ in chosen]
            parts = [(point.snapshot, weight / sum(weights)) for point, weight in zip(chosen, weights, strict=True)]
            why = draw.choice(["search", "candidate", "final"])
            made = yield from track.blend(here, parts, score=brief.tasks, keep=keep, why=why)
        else:
            mixture = Mixture(tasks=tuple(task for task in brief.tasks if draw.random() < 0.8) or brief.tasks)
            stop = track.start(here, mixture) + draw.randint(1, 4)
            each = tuple(draw.choice(points).snapshot for _ in draw.choice([("all",), mixture.tasks]))
            teacher = Teacher(snapshots=each) if draw.random() < 0.3 else None
            if track.start(here, mixture):  # a roll-out goes on with the teacher that it has
                teacher = taught
            taught = teacher
            made = yield from track.advance(here, mixture, stop, score=brief.tasks, keep=keep, teacher=teacher)
        points = [*draw.sample(points, min(len(points), draw.randint(1, 4))), made]
    return draw.choice(points).snapshot


@dataclass(frozen=True, kw_only=True)
class Params:
    """None of them has any."""


OWN = {
    plan.__name__: Method(plan=plan, Params=Params)
    for plan in (halves, weighs, decays, averages, soups, teaches, wanders)
}
