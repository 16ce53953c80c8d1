"""The shipped suite catches what a method can get wrong, and says what it is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from msft.core.errors import RunError
from msft.core.method import Method
from msft.core.outlook import Bound, Outlook, Standing
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan
from msft.methods import METHODS
from msft.testing import conformance

SFT = METHODS["sft"]
CASE = conformance.Case(preset="default", job="apart", sizes="plain", items=0)


def forgets(brief: Brief) -> Plan:
    """Returns a snapshot that it did not keep."""
    track = Track(brief)
    here = first = track.base
    for stop in track.ticks(here, Mixture(tasks=brief.tasks), 3.0):
        here = yield from track.advance(here, Mixture(tasks=brief.tasks), stop, score=brief.tasks)
        first = here if first is track.base else first
    return first.snapshot


COUNT = itertools.count()


def wavers(brief: Brief) -> Plan:
    """Decides by something else than the brief and the outcomes."""
    track = Track(brief)
    answer, here = Answer(brief, track.base), track.base
    for stop in (4, 8 + next(COUNT) % 2):
        here = yield from track.advance(here, Mixture(tasks=brief.tasks), stop, score=brief.tasks, keep=answer.keep)
        answer.offer(here)
    return answer.choose(here)


def shifts(brief: Brief) -> Plan:
    """Changes shares in the middle of an epoch."""
    track = Track(brief)
    half = Mixture(tasks=brief.tasks, shares=(1.0, *(0.5 for _ in brief.tasks[1:])))
    here = yield from track.advance(track.base, Mixture(tasks=brief.tasks), 1, score=brief.tasks)
    here = yield from track.advance(here, half, 2, score=brief.tasks)
    return here.snapshot


def boasts(brief: Brief, at: Standing) -> Outlook:
    """Promises half of what the method takes."""
    said = SFT.outlook(brief, at)
    assert said.bound is not None
    return replace(said, bound=Bound(instances=said.bound.instances / 2, why="a promise"))


def hoards(brief: Brief, at: Standing) -> Outlook:
    return replace(SFT.outlook(brief, at), snapshots=1)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (Method(plan=forgets, Params=SFT.Params), RunError, "snapshot 1, which it "),
        (Method(plan=wavers, Params=SFT.Params), Exception, "stop was|asks for something else|ends otherwise"),
        (Method(plan=shifts, Params=SFT.Params), RunError, "changes the mixture after 1 of the 17 steps"),
        (replace(SFT, outlook=boasts), AssertionError, "a promise"),
        (replace(SFT, outlook=hoards), AssertionError, "the outlook says at most 1"),
    ],
)
def test_a_wrong_method_is_caught(method: Method, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        conformance.check(method, CASE)


def test_a_method_of_ones_own_passes() -> None:
    """One without an outlook too: then nothing bounds it."""
    own = Method(plan=SFT.plan, Params=SFT.Params)
    for case in conformance.cases(own):
        conformance.check(own, case)
