"""What a search refuses a method, and what it lets it do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from msft.core.errors import RunError
from msft.core.method import Method
from msft.core.rollout import Track
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Anneal, Brief, Mixture, Plan, Teacher
from msft.testing.fake import Curve, FakeEngine, brief_of


def greedy(shares_change_at: int, *, turns: bool) -> Method:
    """Ten steps an epoch; after some steps, half of the second sub-dataset is left out, with or without a turn."""

    def plan(brief: Brief) -> Plan:
        track = Track(brief)
        whole, half = Mixture(tasks=brief.tasks), Mixture(tasks=brief.tasks, shares=(1.0, 0.5))
        here = yield from track.advance(track.base, whole, shares_change_at, score=brief.tasks)
        if turns:
            here = yield from track.turn(here, half)
        here = yield from track.advance(here, half, track.start(here, half) + 2, score=brief.tasks)
        return here.snapshot

    return Method(plan=plan, Params=type(None))


def decided(at: int, **changes: Any) -> Method:
    """Ten steps an epoch; after some steps, the mixture changes."""

    def plan(brief: Brief) -> Plan:
        track, whole = Track(brief), Mixture(tasks=brief.tasks)
        here = yield from track.advance(track.base, whole, at, score=brief.tasks)
        here = yield from track.advance(here, replace(whole, **changes), at + 2, score=brief.tasks)
        return here.snapshot

    return Method(plan=plan, Params=type(None))


def search_with(method: Method) -> Search:
    engine = FakeEngine({"a": Curve(), "b": Curve()}, {"a": 20, "b": 20})
    search = Search(method, brief_of(engine, None))
    while (segment := search.ask()) is not None:
        search.tell(engine.run(segment, search.number))
    return search


@pytest.mark.parametrize("at", [1, 9, 11])
def test_shares_that_change_within_an_epoch_are_refused(at: int) -> None:
    message = rf"segment 2: the method changes the mixture after {at % 10} of the 10 steps of an epoch.*track\.turn"
    with pytest.raises(RunError, match=message):
        search_with(greedy(at, turns=False))


@pytest.mark.parametrize("at", [10, 20])
def test_shares_may_change_where_an_epoch_begins(at: int) -> None:
    assert search_with(greedy(at, turns=False)).answer == 2


def test_what_is_replayed_changes_where_an_epoch_begins_and_what_a_loss_weighs_at_any_step() -> None:
    replayed: dict[str, Any] = {"replayed": frozenset({"b"})}
    assert search_with(decided(10, **replayed)).answer == 2
    with pytest.raises(RunError, match=r"changes the mixture after 7 of the 10 steps of an epoch"):
        search_with(decided(7, **replayed))
    for at in (7, 10):
        assert search_with(decided(at, loss_weights=(1.0, 0.5))).answer == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss_weights": (1.0, -1.0)},
            r"segment 2: the method weighs a loss by -1\.0\. Fix: give weights of 0 or more",
        ),
        ({"loss_weights": (math.nan, 1.0)}, "weighs a loss by nan"),
        ({"loss_weights": (1.0, math.inf)}, "weighs a loss by inf"),
        ({"loss_weights": (0.0, 0.0)}, "weighs every loss by 0.*Fix: give one a weight above 0"),
        ({"replayed": frozenset({"c"})}, "replays c, which is not in the mixture.*Fix: name it in `tasks` too"),
    ],
)
def test_a_segment_that_cannot_be_run_is_refused_before_it_is(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        search_with(decided(10, **changes))


def annealing(**fields: Any) -> Method:
    def plan(brief: Brief) -> Plan:
        track, whole = Track(brief), Mixture(tasks=brief.tasks)
        anneal = Anneal(**{"start": 90, "stop": 100, **fields})
        here = yield from track.advance(track.base, whole, 90, score=brief.tasks)
        here = yield from track.advance(here, whole, 100, score=brief.tasks, anneal=anneal)
        return here.snapshot

    return Method(plan=plan, Params=type(None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": 90}, "from step 90 to step 90 of the roll-out.*Fix: let `anneal` stop after it starts"),
        ({"start": -1}, "from step -1"),
        ({"to": 1.5}, r"to 1\.5 times itself\. Fix: give a factor from 0 to 1"),
        ({"to": math.nan}, "to nan times itself"),
        ({"shape": "steps"}, "in the shape 'steps'. Fix: let it be one of linear, cosine, sqrt"),
        ({"stop": 102}, r"segment 2: the method lowers the learning rate until epoch 10\.2, and max_epochs is 10\. "
                        r"Fix: begin earlier: `track\.left\(here\)`"),
    ],
)  # fmt: skip
def test_a_rate_that_cannot_fall_as_asked_is_refused(fields: dict[str, Any], message: str) -> None:
    assert search_with(annealing()).answer == 2
    with pytest.raises(RunError, match=message):
        search_with(annealing(**fields))


def blending(*parts: tuple[int, float], **changes: Any) -> Method:
    def plan(brief: Brief) -> Plan:
        track, whole = Track(brief), Mixture(tasks=brief.tasks)
        first = yield from track.advance(track.base, whole, 3, score=brief.tasks)
        second = yield from track.advance(first, whole, 6, score=brief.tasks, keep={first.snapshot})
        blend = track.blend(second, parts, score=brief.tasks)
        segment = next(blend)
        outcome = yield replace(segment, **changes)
        return outcome.snapshot

    return Method(plan=plan, Params=type(None))


def test_a_blend_is_a_snapshot_of_its_own() -> None:
    search = search_with(blending((ROOT, 0.25), (1, 0.25), (2, 0.5)))
    assert search.answer == 3
    assert search_with(blending((2, 1.0))).answer == 3
    assert search_with(blending((1, 0.5), (2, 0.5), ties=0.2)).answer == 3


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            blending((1, 0.5), (2, 0.4)),
            r"segment 3: the weights of a blend sum to 0\.9\. Fix: divide each by their sum",
        ),
        (blending((1, 1.5), (2, -0.5)), r"gives snapshot 2 the weight -0\.5 in a blend\. Fix: give weights above 0"),
        (
            blending((2, 1.0), why="canditate"),
            "for the reason 'canditate'. Fix: let `why` be one of search, candidate, teacher, f",
        ),
        (blending((1, 1.0), (2, 0.0)), r"gives snapshot 2 the weight 0\.0"),
        (blending((1, math.nan), (2, 1.0)), "gives snapshot 1 the weight nan"),
        (blending((1, math.inf), (2, 1.0)), "gives snapshot 1 the weight inf"),
        (blending((1, 0.5), (2, 0.5), ties=1.0), r"merges 2 snapshots by TIES, with a density of 1\.0\. Fix: give"),
        (blending((1, 0.5), (2, 0.5), ties=math.nan), "with a density of nan"),
        (blending((1, 1.0), blend=(), ties=0.2), "merges 0 snapshots by TIES"),
        (blending((7, 0.5), (2, 0.5)), "requests snapshot 7, which it dropped"),
        (blending((1, 0.5), (2, 0.5), stop=4), "blends snapshots and trains from step 0 to step 4 at once"),
        (
            blending((1, 0.5), (2, 0.5), start=6, stop=6),
            "from step 6 to step 6 at once.*Fix: blend in a segment of its own",
        ),
        (
            blending((1, 0.5), (2, 0.5), anneal=Anneal(start=0, stop=2)),
            "lowers the learning rate where nothing is trained",
        ),
    ],
)
def test_a_blend_that_is_no_mean_is_refused(method: Method, message: str) -> None:
    with pytest.raises(RunError, match=message):
        search_with(method)


def taught(**changes: Any) -> Method:
    """A first tick, which teaches a second one from the base model."""
    fields = {name: changes.pop(name) for name in ("snapshots", "share", "top") if name in changes}
    teacher = Teacher(**{"snapshots": (1,)} | fields)

    def plan(brief: Brief) -> Plan:
        track, whole = Track(brief), Mixture(tasks=brief.tasks)
        yield from track.advance(track.base, whole, 3, score=brief.tasks)
        segment = next(track.advance(track.base, whole, 3, score=brief.tasks, teacher=teacher))
        outcome = yield replace(segment, **changes)
        return outcome.snapshot

    return Method(plan=plan, Params=type(None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"share": 0.0},
            r"segment 2: the method gives a teacher the share 0\.0\. Fix: give a share above 0, at most 1",
        ),
        ({"share": math.nan}, "the share nan"),
        ({"top": 0}, "asks for 0 tokens of a teacher's predictions. Fix: let `top` be 1 or more"),
        ({"stop": 0}, "gives a teacher where nothing is trained"),
        ({"snapshots": (9,)}, "requests snapshot 9, which it dropped"),
        ({"snapshots": (1, 9)}, "requests snapshot 9, which it dropped"),
        (
            {"snapshots": (1, 0, 1)},
            "the method gives 2 sub-datasets 3 teachers. Fix: give one to each of them, or one alone to all",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        search_with(taught(**fields))
    assert search_with(taught()).answer == 2


@pytest.mark.parametrize("teacher", [None, Teacher(snapshots=(1,), share=0.1), Teacher(snapshots=(ROOT,))])
def test_a_teacher_that_changes_within_a_roll_out_is_refused(teacher: Teacher | None) -> None:
    """Its predictions are computed, and counted, where a roll-out begins."""

    def plan(brief: Brief) -> Plan:
        track, whole, known = Track(brief), Mixture(tasks=brief.tasks), Teacher(snapshots=(1,))
        yield from track.advance(track.base, whole, 3, score=brief.tasks)
        here = yield from track.advance(track.base, whole, 3, score=brief.tasks, keep={1}, teacher=known)
        here = yield from track.advance(here, whole, 6, score=brief.tasks, keep={1}, teacher=known)
        here = yield from track.advance(here, whole, 9, score=brief.tasks, teacher=teacher)
        return here.snapshot

    with pytest.raises(RunError, match=r"segment 4: the method changes the teacher within a roll-out\. Fix: give the"):
        search_with(Method(plan=plan, Params=type(None)))


def test_shares_may_change_through_a_turn() -> None:
    assert search_with(greedy(7, turns=True)).answer == 3
