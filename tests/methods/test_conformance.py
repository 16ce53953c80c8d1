"""Every method of the package passes the suite that it ships (design 2.1)."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from msft.core.errors import Diverged
from msft.core.headroom import RECORD
from msft.core.search import Search
from msft.core.vocabulary import ROOT
from msft.core.wire import brief_from_json, brief_to_json
from msft.methods import METHODS, outlook_of
from msft.testing import conformance
from msft.testing.conformance import Case
from msft.testing.fake import brief_of

CASES = [
    pytest.param(name, case, id=f"{name}-{case}")
    for name, method in METHODS.items()
    for case in conformance.cases(method)
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_conformance(name: str, case: Case) -> None:
    conformance.check(METHODS[name], case)


@pytest.mark.parametrize(("name", "case"), [case for case in CASES if not case.values[1].items])
def test_as_many_snapshots_are_held_as_design_3_9_says(name: str, case: Case) -> None:
    """Between segments at most min(active, ticks + 1) + 2, plus the smoothing half-window, and for a merger the models
    that are finished."""
    engine = case.engine()
    brief = case.brief(METHODS[name], engine)
    _, journal = conformance.run(METHODS[name], brief, engine)
    half, tick = outlook_of(name, brief).window // 2, 0
    for i, (segment, _) in enumerate(journal):
        tick = 0 if i and journal[i - 1][0].rollout != segment.rollout else tick
        held = ({segment.parent} | segment.keep) - {ROOT}
        finished = segment.rollout - 1 if name == "merge" else 0
        assert len(held) <= min(len(brief.tasks), tick + 1) + 2 + half + finished
        tick += segment.trains


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_package_says_what_it_may_do_at_most(name: str) -> None:
    case = conformance.cases(METHODS[name])[0]
    outlook = outlook_of(name, case.brief(METHODS[name], case.engine()))
    assert outlook.bound is not None and outlook.snapshots is not None


@pytest.mark.parametrize("name", METHODS)
def test_every_evaluation_can_record_each_item_and_nothing_else_changes(name: str) -> None:
    found = []
    for record in (False, True):
        engine, method = apart().engine(), METHODS[name]
        brief = conformance.brief_for(method, engine, horizon=6.5, record=record)
        assert brief_from_json(brief_to_json(brief), brief.params) == brief
        found.append(conformance.run(method, brief, engine))
    (answer, plain), (same, whole) = found
    assert answer == same
    assert [replace(s, probes=frozenset()) for s, _ in whole] == [replace(s, probes=frozenset()) for s, _ in plain]
    for (before, _), (segment, outcome) in zip(plain, whole, strict=True):
        assert segment.probes == before.probes | (set(RECORD) if segment.score else set())
        assert not segment.score or set(outcome.items or ()) == set(outcome.metrics or ()) == set(segment.score)


def apart(**fields: object) -> Case:
    return Case(**{"preset": "default", "job": "apart", "sizes": "plain", "items": 0, **fields})  # type: ignore[arg-type]


def test_a_brief_from_before_the_excluded_had_a_choice_is_still_read() -> None:
    brief = brief_of(apart().engine(), None)
    assert "score_excluded" not in brief_to_json(brief)
    assert brief_from_json(brief_to_json(brief)) == brief


@pytest.mark.parametrize("name", METHODS)
def test_a_changed_brief_is_refused_with_the_difference_named(name: str) -> None:
    engine, method = apart().engine(), METHODS[name]
    brief = conformance.brief_for(method, engine)
    _, journal = conformance.run(method, brief, engine)
    with pytest.raises(Diverged, match=r"segment 1: .*stop was \d+, is now \d+"):
        Search(method, dataclasses.replace(brief, batch_size=7), journal)


def test_an_outcome_that_does_not_answer_is_refused() -> None:
    engine = apart().engine()
    search = Search(METHODS["sft"], brief_of(engine, METHODS["sft"].Params()))
    segment = search.ask()
    assert segment is not None
    good = engine.run(segment, 1)
    for bad in (
        dataclasses.replace(good, snapshot=3),
        dataclasses.replace(good, scores={"a": 1.0}),
        dataclasses.replace(good, reports={}),
        dataclasses.replace(good, loss={"a": 1.0}),
    ):
        with pytest.raises(ValueError, match="the outcome must"):
            search.tell(bad)
    search.tell(good)
    assert search.ask() != segment
