"""Small methods that use each word of the vocabulary: no method of the package uses all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msft.core.method import Method
from msft.core.rollout import Answer, Track, replaying
from msft.core.vocabulary import Anneal, Brief, Mixture, Plan, Probe, Task


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


@dataclass(frozen=True, kw_only=True)
class Params:
    """None of them has any."""


OWN = {plan.__name__: Method(plan=plan, Params=Params) for plan in (halves, weighs, decays)}
