"""The run on all rows that may follow a search (`method.refit`): the times that were found, and no hold-out.

A search holds rows out, because it decides on scores of rows that the model has not been trained on. Its final model
has therefore not seen them. With `refit`, the path to that model is trained again, from the base model: the same
mixtures, each for as many epochs, and an epoch now has the held-out rows too. So no score of those rows is left that
would say anything of the final model, and none is taken: `Search` refuses it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from msft.core.clock import Clock
from msft.core.errors import RunError, complaint
from msft.core.rollout import Track
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Plan, Segment, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """The part of a roll-out that is on the path to the final model."""

    mixture: Mixture
    epochs: float
    reset_optimizer: bool


def refitted(plan: Plan, brief: Brief) -> Plan:
    """A plan, and the run on all rows that follows it. The base model needs no such run."""
    made: list[Segment] = []
    chosen = yield from _recorded(plan, made)
    if chosen == ROOT:
        return ROOT
    end, clock = made[chosen - 1], Clock.of(brief)
    yield Segment(  # says in the journal which point the search chose
        parent=chosen,
        rollout=max(segment.rollout for segment in made),
        mixture=end.mixture,
        start=0,
        stop=0,
        epoch=end.epoch + clock.epochs(end.mixture, end.stop - end.start),
        score=(),
        why="refit",
    )
    here, rollout = Track(brief).base, max(segment.rollout for segment in made)
    following = phases(path(made, chosen), clock)
    for phase in following:
        track = Track(brief)  # each phase begins a roll-out, as it did in the search
        track.rollout = rollout
        mixture = replace(phase.mixture, whole=True)
        ticks = track.ticks(here, mixture, phase.epochs)
        for stop in ticks:
            # An aggregate is held out of this run too.
            ends = stop == ticks[-1] and phase is following[-1]
            here = yield from track.advance(
                here, mixture, stop, score=(brief.aggregate,) if ends and brief.aggregate is not None else (),
                reset_optimizer=phase.reset_optimizer, why="refit",
            )  # fmt: skip
        rollout = track.rollout
    return here.snapshot


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
        if segment.blend or segment.mixture.without or segment.anneal is not None or segment.teacher is not None:
            what = "blends snapshots, leaves out single examples, lowers the learning rate itself or has a teacher"
            reason, fix = f"a run on all rows cannot follow a method that {what}", "remove refit, or use msft or sft"
            raise RunError(complaint(reason, fix, field="method.refit"))
        found.append(segment)
        snapshot = segment.parent
    return found[::-1]


def phases(segments: Sequence[Segment], clock: Clock) -> list[Phase]:
    """The path, as how long each mixture was trained in one roll-out."""
    parts = [list(part) for _, part in groupby(segments, key=lambda segment: (segment.rollout, segment.mixture))]
    return [
        Phase(
            mixture=part[0].mixture,
            epochs=clock.epochs(part[0].mixture, part[-1].stop - part[0].start),
            reset_optimizer=part[0].reset_optimizer,
        )
        for part in parts
    ]
