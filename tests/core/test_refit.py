"""The run on all rows that follows a search: the same path, longer epochs, and no score of what it has seen."""

from __future__ import annotations

import dataclasses

import pytest

from msft.core.clock import Clock
from msft.core.errors import RunError
from msft.core.method import Method
from msft.core.refit import path, phases
from msft.core.rollout import Track
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Mixture
from msft.core.wire import brief_from_json, brief_to_json, segment_from_json, segment_to_json
from msft.methods import METHODS, self_distil, sft
from msft.methods.msft import Params
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, brief_of

CURVES = {"a": Curve(peak=0.9, fall=0.3), "b": Curve(peak=2.2, fall=0.3), "c": Curve(peak=6.0)}
HELD = {"a": 5, "b": 2, "c": 9}
PARAMS = {
    "msft": Params(budget=2.0, smooth=1, leave_within=0.0),
    "sft": sft.Params(),
    "self_distil": self_distil.Params(),
}


def run(method="msft", params=None, held=HELD, **changes):
    """Segments with their outcomes, the snapshot of the final model, and the brief."""
    engine = FakeEngine(CURVES, {"a": 24, "b": 17, "c": 40}, held=held)
    given = params or (PARAMS[method] if isinstance(method, str) else sft.Params())
    brief = brief_of(engine, given, **{"horizon": 4.0, **changes})
    made = []
    definition = METHODS[method] if isinstance(method, str) else method
    search = Search(definition, brief)
    answer = drive(search, engine, engine.store, lambda number, segment, outcome: made.append((segment, outcome)))
    return made, answer, brief


@pytest.mark.parametrize("method", list(PARAMS))
@pytest.mark.parametrize("select", ["best", "last"])
def test_the_search_is_the_same_and_its_path_is_trained_again_on_all_rows(method, select):
    alone, chosen, _ = run(method, held=None, select=select)
    made, answer, brief = run(method, select=select)
    assert made[: len(alone)] == alone  # nothing of the search depends on what follows it
    marker, *final = [segment for segment, _ in made[len(alone) :]]
    assert (marker.parent, marker.start, marker.stop, marker.why) == (chosen, 0, 0, "refit")
    assert answer == len(made) and final[0].parent == ROOT
    assert all(s.mixture.whole and s.why == "refit" and not s.score and not s.keep for s in final)
    taught = alone[chosen - 1][0].teacher
    assert {s.teacher for s in final} == {taught} and (taught is None) == (method != "self_distil")
    assert marker.keep == (frozenset() if taught is None else frozenset(taught.snapshots) - {ROOT})
    assert not any(s.mixture.whole for s, _ in alone)
    clock = Clock.of(brief)
    was = phases(path([s for s, _ in alone], chosen), clock)
    now = phases(final, clock)
    assert [dataclasses.replace(p.mixture, whole=False) for p in now] == [p.mixture for p in was]
    for one, other in zip(was, now, strict=True):
        steps = clock.steps_per_epoch(other.mixture)
        assert other.epochs == pytest.approx(one.epochs, abs=1 / steps)
        assert steps >= clock.steps_per_epoch(one.mixture)
    assert clock.instances(Mixture(tasks=brief.tasks, whole=True)) == 24 + 17 + 40 + 5 + 2 + 9
    assert method != "msft" or len(was) > 1, "nothing was excluded"


@pytest.mark.parametrize("method", ["msft", "self_distil"])
def test_a_resumed_search_goes_on_in_the_run_on_all_rows(method):
    made, answer, brief = run(method)
    for cut in range(len(made) + 1):
        search = Search(METHODS[method], brief, made[:cut])
        for segment, outcome in made[cut:]:
            assert search.ask() == segment
            search.tell(outcome)
        assert search.answer == answer


def test_the_journal_keeps_it_and_does_not_name_it_elsewhere():
    made, _, brief = run()
    again = brief_from_json(brief_to_json(brief), brief.params)
    assert (again.whole, again.held) == (brief.whole, brief.held)
    assert all(segment_from_json(segment_to_json(segment)) == segment for segment, _ in made)
    alone, _, plain = run(held=None)
    assert not {"whole", "held"} & brief_to_json(plain).keys()
    assert all("whole" not in segment_to_json(segment)["mixture"] for segment, _ in alone)


def test_the_base_model_is_not_trained_again():
    made, answer, _ = run("sft", select="best", held=HELD, base=brief_base_of(best=True))
    assert answer == ROOT and all(segment.why == "search" for segment, _ in made)


def brief_base_of(*, best):
    base = FakeEngine(CURVES, {"a": 24, "b": 17, "c": 40}).base()
    return dataclasses.replace(base, scores=dict.fromkeys(CURVES, 1.0)) if best else base


def test_a_model_is_not_scored_on_items_that_it_was_trained_on():
    """Whatever a method asks for: directly, or any number of segments later."""

    def greedy(later):
        def plan(brief: Brief):
            track = Track(brief)
            here = yield from track.advance(
                track.base, Mixture(tasks=brief.tasks, whole=True), 3, score=() if later else brief.tasks
            )
            here = yield from track.advance(here, Mixture(tasks=brief.tasks[:1]), 2, score=brief.tasks)
            return here.snapshot

        return Method(plan=plan, Params=sft.Params)

    for later in (False, True):
        with pytest.raises(
            RunError, match=rf"segment {1 + later}: the method scores a model on items that it was trained on"
        ):
            run(greedy(later))
    with pytest.raises(RunError, match="segment 1: nothing is held out"):
        run(greedy(False), held=None)


def test_the_bound_counts_the_run_on_all_rows():
    made, _, brief = run()
    bound = METHODS["msft"].outlook_at(brief).bound
    trained = sum((s.stop - s.start) * brief.batch_size for s, _ in made if s.trains)
    assert bound is not None and trained <= bound.instances * 1.1
    assert bound.why.endswith(", and the final run on all rows")


def test_teachers_read_all_rows_again():
    made, _, brief = run("self_distil")
    outlook, rows = METHODS["self_distil"].outlook_at(brief), sum(brief.distinct)
    assert outlook.probed_epochs == pytest.approx(2 + sum(HELD.values()) / rows)
    assert sum(outcome.tokens.probe for _, outcome in made) == pytest.approx(10 * rows * outlook.probed_epochs)
