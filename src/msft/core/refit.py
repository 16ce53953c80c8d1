"""The run on all rows that may follow a search (`method.refit`): the times that were found, and no hold-out.

A search holds rows out, because it decides on scores of rows that the model has not been trained on. Its final model
has therefore not seen them. With `refit`, the path to that model is trained again, from the base model: the same
mixtures, each for as many epochs and with the same teachers, and an epoch now has the held-out rows too. So no score of
those rows is left that would say anything of the final model, and none is taken: `Search` refuses it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from msft.core.clock import Clock
from msft.core.errors import RunError, complaint
from msft.core.rollout import Track
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Plan, Segment, Snapshot, Teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """The part of a roll-out that is on the path to the final model."""

    mixture: Mixture
    epochs: float
    reset_optimizer: bool
    teacher: Teacher | None


def refitted(plan: Plan, brief: Brief) -> Plan:
    """A plan, and the run on all rows that follows it. The base model needs no such run."""
    made: list[Segment] = []
    chosen = yield from _recorded(plan, made)
    if chosen == ROOT:
        return ROOT
    end, clock = made[chosen - 1], Clock.of(brief)
    following = phases(path(made, chosen), clock)
    yield Segment(  # says in the journal which point the search chose
        parent=chosen,
        rollout=max(segment.rollout for segment in made),
        mixture=end.mixture,
        start=0,
        stop=0,
        epoch=end.epoch + clock.epochs(end.mixture, end.stop - end.start),
        score=(),
        keep=_teachers(following),
        why="refit",
    )
    here, rollout = Track(brief).base, max(segment.rollout for segment in made)
    for number, phase in enumerate(following):
        track = Track(brief)  # each phase begins a roll-out, as it did in the search
        track.rollout = rollout
        mixture = replace(phase.mixture, whole=True)
        ticks = track.ticks(here, mixture, phase.epochs)
        for stop in ticks:
            # An aggregate is held out of this run too.
            ends = stop == ticks[-1] and phase is following[-1]
            here = yield from track.advance(
                here, mixture, stop, score=(brief.aggregate,) if ends and brief.aggregate is not None else (),
                keep=_teachers(following[number + 1 :]), reset_optimizer=phase.reset_optimizer, teacher=phase.teacher,
                why="refit",
            )  # fmt: skip
        rollout = track.rollout
    return here.snapshot


def _teachers(phases: Sequence[Phase]) -> frozenset[Snapshot]:
    found = {snapshot for phase in phases if phase.teacher is not None for snapshot in phase.teacher.snapshots}
    return frozenset(found - {ROOT})


def _recorded(plan: Plan, made: list[Segment]) -> Generator[Segment, Outcome, Snapshot]:
    """Passes a plan on, and keeps its segments."""
    try:
        segment = next(plan)
        while True:
            outcome = yield segment
            made.append(segment)
            segment = plan.send(outcome)
    except StopIteration as end:
        found: Snapshot = end.value
        return found


def path(made: Sequence[Segment], snapshot: Snapshot) -> list[Segment]:
    """The training that led from the base model to a snapshot. Raises RunError where it cannot be followed."""
    found = list[Segment]()
    while snapshot != ROOT:
        segment = made[snapshot - 1]
        if segment.blend or segment.mixture.without or segment.anneal is not None:
            what = "blends snapshots, leaves out single examples or lowers the learning rate itself"
            reason, fix = f"a run on all rows cannot follow a method that {what}", "remove refit, or use another method"
            raise RunError(complaint(reason, fix, field="method.refit"))
        found.append(segment)
        snapshot = segment.parent
    return found[::-1]


def steps_of(made: Sequence[Segment], segment: Segment, clock: Clock) -> int:
    """Steps of the whole roll-out of this run that a segment of it belongs to. `made`: all segments before it."""
    marker = next(one for one in made if one.why == "refit")
    phase = phases(path(made, marker.parent), clock)[segment.rollout - marker.rollout - 1]
    return clock.steps(replace(phase.mixture, whole=True), phase.epochs)


def phases(segments: Sequence[Segment], clock: Clock) -> list[Phase]:
    """The path, as how long each mixture was trained in one roll-out. A roll-out has one teacher, or none."""
    parts = [list(part) for _, part in groupby(segments, key=lambda segment: (segment.rollout, segment.mixture))]
    return [
        Phase(
            mixture=part[0].mixture,
            epochs=clock.epochs(part[0].mixture, part[-1].stop - part[0].start),
            reset_optimizer=part[0].reset_optimizer,
            teacher=part[0].teacher,
        )
        for part in parts
    ]
