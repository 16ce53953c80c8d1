"""What each of the compared methods does that the conformance suite cannot know."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from msft.core.rollout import Answer, Track, depart
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Outcome, Probe, Segment, Snapshot
from msft.methods import METHODS, continual, dynamix, ies
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, brief_of

APART = {"a": Curve(peak=1.0), "b": Curve(peak=3.0), "c": Curve(peak=6.0)}
SIZES = {"a": 16, "b": 16, "c": 32}


def play(name: str, engine: FakeEngine | None = None, /, **changes: object) -> tuple[FakeEngine, list, Snapshot]:
    engine = engine or FakeEngine(APART, SIZES)
    method = METHODS[name]
    brief = brief_of(engine, changes.pop("params", method.Params()), **changes)
    journal: list[tuple[Segment, Outcome]] = []
    answer = drive(Search(method, brief), engine, engine.store, lambda _, s, o: journal.append((s, o)))
    return engine, journal, answer


def test_sft_answers_with_its_best_macro_tick() -> None:
    _, journal, answer = play("sft")
    macro = [sum(o.scores.values()) for _, o in journal]
    assert answer == 1 + macro.index(max(macro))
    assert {s.rollout for s, _ in journal} == {1}
    _, journal, answer = play("sft", select="last")
    assert answer == len(journal) == 40


@pytest.mark.parametrize(("order", "first"), [("given", "a"), ("size_asc", "a"), ("size_desc", "c")])
def test_continual_goes_on_from_each_best_tick(order: str, first: str) -> None:
    method = METHODS["continual"]
    engine, journal, answer = play("continual", params=method.Params(order=order), select="last")
    assert journal[0][0].mixture.tasks == (first,)
    turns = [(i, s) for i, (s, _) in enumerate(journal) if not s.trains]
    assert len(turns) == 3
    exposures = [engine.states[turn.parent] for _, turn in turns]
    assert exposures[0][first] == pytest.approx(APART[first].peak)  # its peak lies on a tick
    assert {task for task, e in exposures[-1].items() if e == pytest.approx(APART[task].peak)} == {"a", "b", "c"}
    assert answer == turns[-1][1].parent


def test_sro_excludes_each_after_its_own_peak() -> None:
    engine, journal, answer = play("sro")
    second = [(s, o) for s, o in journal if s.rollout > 1]
    assert [s.mixture.tasks for s, _ in second] == [("b", "c"), ("c",)]
    assert engine.states[second[0][0].parent] == {"a": 1.0, "b": 1.0, "c": 1.0}  # where both runs are identical
    assert engine.states[second[-1][1].snapshot] == {"a": 1.0, "b": 3.0, "c": 6.0}
    assert answer == second[-1][1].snapshot
    assert len([s for s, _ in journal if s.rollout == 1]) == 40


def test_an_exclusion_whose_time_a_whole_step_has_passed_trains_no_step_more() -> None:
    """One step an epoch, and times within it: the first step passes them all."""
    engine = FakeEngine(APART, SIZES, batch_size=64)
    brief = brief_of(engine, METHODS["sro"].Params())
    track = Track(brief)
    running = depart(track, track.base, {"a": 0.1, "b": 0.35, "c": 1.2}, Answer(brief, track.base))
    made: list[Segment] = []
    try:
        segment = next(running)
        while True:
            made.append(segment)
            segment = running.send(engine.run(segment, len(made)))
    except StopIteration as end:
        assert end.value.epoch == 2.0
    assert [s.mixture.tasks for s in made] == [("a", "b", "c"), ("c",)]


def test_sro_never_trains_what_is_best_at_the_start_and_can_end_early() -> None:
    curves = {**APART, "a": Curve(peak=1e-9, base=0.8, fall=0.2)}
    _, journal, _ = play("sro", FakeEngine(curves, SIZES), params=METHODS["sro"].Params(stop_after=3))
    second = [s for s, _ in journal if s.rollout > 1]
    assert second[0].parent == ROOT
    assert second[0].mixture.tasks == ("b", "c")
    macro = [sum(o.scores.values()) for s, o in journal if s.rollout == 1]
    assert len(macro) - 1 - macro.index(max(macro)) == 3


def test_soft_sro_weighs_by_size_and_peak() -> None:
    _, journal, _ = play("soft_sro")
    second = [s for s, _ in journal if s.rollout == 2]
    assert second[0].parent == ROOT
    assert second[0].mixture.weights == (16 * 1.0, 16 * 3.0, 32 * 6.0)
    instances = second[-1].stop * 4
    assert instances == 16 * 1 + 16 * 3 + 32 * 6


def test_one_pass_drops_what_is_stale_and_never_goes_back() -> None:
    engine, journal, _ = play("one_pass", params=METHODS["one_pass"].Params(patience=2))
    tip = ROOT
    for segment, outcome in journal:
        assert segment.parent == tip
        tip = outcome.snapshot
    left = {task: engine.states[tip][task] for task in ("a", "b", "c")}
    assert left == {"a": 1.5, "b": 3.5, "c": 6.5}  # two ticks after each peak


def test_placebo_deals_out_the_searchs_own_times() -> None:
    method = METHODS["placebo"]
    params = method.Params(times={"a": 1.0, "b": 3.0, "c": 6.0}, replay=0.0)
    engine, journal, _ = play("placebo", params=params)
    end = engine.states[journal[-1][1].snapshot]
    assert sorted(end.values()) == [1.0, 3.0, 6.0]
    dealt = set()
    for seed in range(8):
        engine, journal, _ = play("placebo", params=params, seed=seed)
        dealt.add(tuple(engine.states[journal[-1][1].snapshot].values()))
    assert len(dealt) > 1
    searched = METHODS["msft"].Params(replay=0.0)
    mine, _, _ = play("msft", params=searched)
    whole, journal, _ = play("placebo", params=method.Params(replay=0.0))
    assert whole.runs[: len(mine.runs)] == mine.runs
    assert whole.trained > mine.trained
    with pytest.raises(ValueError, match="times must be one epoch for each"):
        play("placebo", params=method.Params(times={"a": 1.0}))


def test_placebo_with_replay_starts_an_epoch_at_each_departure() -> None:
    """Only shares change there: an epoch of the old mixture must not be gone on with in the new one's."""
    params = METHODS["placebo"].Params(times={"a": 0.4, "b": 1.3, "c": 2.6}, replay=0.2)
    _, journal, _ = play("placebo", params=params)
    trained = [segment for segment, _ in journal if segment.trains]
    assert len({segment.mixture.shares for segment in trained}) == 3
    assert [segment.start for segment in trained] == [0, 0, 0]


def test_dynamix_samples_by_the_papers_formula() -> None:
    _, journal, _ = play("dynamix", params=dynamix.Params(update_every=7))
    weights = [s.mixture.weights for s, _ in journal]
    prior = [16 / 64, 16 / 64, 32 / 64]
    assert weights[0] == pytest.approx([0.7 * p + 0.1 for p in prior])
    updates = [i for i, (s, _) in enumerate(journal) if Probe.LOOKAHEAD in s.probes]
    assert [journal[i][0].stop for i in updates] == list(range(7, 160, 7))
    rewards = journal[updates[0]][1].lookahead
    low, high = min(rewards.values()), max(rewards.values())
    value = [0.05 * (rewards[t] - low) / (high - low) for t in "abc"]
    odds = [p * math.exp(4 * q) for p, q in zip(prior, value, strict=True)]
    assert weights[updates[0] + 1] == pytest.approx([0.7 * o / sum(odds) + 0.1 for o in odds])
    assert {s.rollout for s, _ in journal} == {1}


def test_dynamix_keeps_values_where_rewards_say_nothing() -> None:
    assert dynamix.updated({"a": 0.5, "b": 0.1}, {"a": math.nan, "b": 3.0}, 0.9) == {"a": 0.5, "b": pytest.approx(0.09)}
    assert dynamix.updated({"a": 0.5, "b": 0.1}, {"a": 2.0, "b": 2.0}, 0.9) == {
        "a": pytest.approx(0.45),
        "b": pytest.approx(0.09),
    }


def test_dynamix_finds_its_rhythm() -> None:
    assert [s.stop for s, _ in play("dynamix", horizon=2.0)[1] if Probe.LOOKAHEAD in s.probes] == list(range(1, 32))
    long = replace(brief_of(FakeEngine(APART, SIZES), dynamix.Params()), horizon=200.0)
    segment = METHODS["dynamix"].plan(long)
    assert next(segment).stop == 4  # the first tick comes before the first update at step 50


def test_ies_masters_nothing_before_the_sixth_epoch_and_lets_instances_return() -> None:
    """Two instances: the loss of number 1 never settles, that of number 0 is flat until it jumps in epoch 8."""
    engine = FakeEngine({"a": Curve()}, {"a": 2}, batch_size=2, eval_every=1.0)
    search = Search(METHODS["ies"], brief_of(engine, ies.Params(), horizon=10.0))
    without = []
    for epoch in range(1, 11):
        segment = search.ask()
        assert segment is not None
        assert (segment.start, segment.stop) == (epoch - 1, epoch)
        without.append({index for _, index in segment.mixture.without})
        losses = {0: 5.0 if epoch >= 8 else 1.0, 1: float(epoch % 2)}
        search.tell(replace(engine.run(segment, epoch), losses={"a": losses}))
        engine.store.held.add(epoch)
    assert without == [set()] * 6 + [{0}, {0}, set(), set()]
    assert search.ask() is None


def test_ies_has_one_loss_of_each_epoch_of_an_instance_that_is_repeated() -> None:
    """Two instances, twice an epoch: the last loss of an epoch is always 1, those before it never settle."""
    engine = FakeEngine({"a": Curve()}, {"a": 4}, batch_size=1, eval_every=0.5, pools={"a": 2})
    search = Search(METHODS["ies"], brief_of(engine, ies.Params(), horizon=9.0))
    number = 0
    while (segment := search.ask()) is not None:
        number += 1
        assert segment.mixture.without == frozenset(), "nothing is left out before both are"
        losses = {"a": dict.fromkeys((0, 1), 1.0 if segment.stop % 4 == 0 else float(number))}
        search.tell(replace(engine.run(segment, number), losses=losses))
        engine.store.held.add(number)
    assert number == 2 * 6, "both are mastered after six epochs"


def test_continual_orders_by_different_examples() -> None:
    engine = FakeEngine(APART, dict.fromkeys(APART, 8), pools={"a": 9, "b": 3, "c": 20})
    for order, sequence in (("size_asc", ["b", "a", "c"]), ("size_desc", ["c", "a", "b"]), ("given", ["a", "b", "c"])):
        params = METHODS["continual"].Params(order=order)
        assert continual.ordered(brief_of(engine, params), params) == sequence


def test_ies_curvature() -> None:
    assert ies.curvature([1, 1, 1, 1, 1]) == math.inf
    assert ies.curvature([9, 1, 2, 1, 2, 1]) == 2.0
    assert ies.curvature([9, 5, 4, 3, 2, 1]) == 0.0
