"""Clock, curves and wire: the arithmetic under every decision."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msft.core.clock import Clock, exact, per_epoch
from msft.core.curves import average, may_be_peaks, peak, smoothed
from msft.core.errors import complaint
from msft.core.vocabulary import Anneal, Brief, Mixture, Outcome, Probe, Segment, Tokens
from msft.core.wire import (
    brief_from_json,
    brief_to_json,
    differences,
    mixture_from_json,
    mixture_to_json,
    outcome_from_json,
    outcome_to_json,
    segment_from_json,
    segment_to_json,
)

scores = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.integers(1, 500), st.integers(1, 64), st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1.0]), st.integers(1, 300))
def test_ticks_are_the_distinct_ceilings_and_the_end(size: int, batch: int, every: float, steps: int) -> None:
    clock = Clock({"a": size}, batch, every)
    mixture = Mixture(tasks=("a",))
    per = clock.steps_per_epoch(mixture)
    assert per == -(-size // batch)
    ticks = clock.ticks(mixture, steps)
    assert ticks[-1] == steps
    assert ticks == sorted(set(ticks))
    wanted = {math.ceil(k * exact(every) * per) for k in range(1, 10 * steps + 12)}
    assert set(ticks) == {t for t in wanted if t < steps} | {steps}


def test_shares_mean_the_decimal_that_was_written() -> None:
    mixture = Mixture(tasks=("a", "b"), shares=(0.1, 1.0), without=frozenset({("b", 3)}), replayed=frozenset({"a"}))
    assert per_epoch(mixture, {"a": 30, "b": 10}) == {"a": 3, "b": 9}
    assert per_epoch(mixture, {"a": 31, "b": 10})["a"] == 4
    assert mixture.active == ("b",)


def test_steps_never_grow_by_rounding() -> None:
    clock = Clock({"a": 70}, 10, 0.25)
    mixture = Mixture(tasks=("a",))
    assert clock.steps(mixture, 10 - (1 / 7) * 3) == 67
    assert clock.steps(mixture, 1e-9) == 1


@given(st.floats(0, 1), st.integers(1, 30), st.sampled_from([1, 3, 5, 7]))
def test_a_constant_curve_stays_constant(value: float, length: int, window: int) -> None:
    """The mean of three times 0.1 in floats is not 0.1: a flat curve would have a peak."""
    assert set(smoothed([value] * length, window)) == {Fraction(value) if window > 1 else value}
    found = peak([value] * length, window)
    assert (found.tick, found.falls) == (0, False)


@given(st.lists(scores, min_size=1, max_size=20), st.sampled_from([1, 3, 5]))
def test_peak_is_the_earliest_best(curve: list[float], window: int) -> None:
    values = smoothed(curve, window)
    found = peak(curve, window)
    assert values[found.tick] == max(values)
    assert max(values[: found.tick], default=-math.inf) < values[found.tick]
    assert found.falls == (values[-1] < max(values))


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=12, max_size=12), min_size=1, max_size=4), st.sampled_from([1, 3, 5])
)
def test_a_peak_was_always_among_the_candidates(table: list[list[int]], window: int) -> None:
    curves = {str(i): [float(x) for x in row] for i, row in enumerate(table)}
    peaks = {peak(c, window).tick for c in curves.values()}
    for seen in range(1, 13):
        candidates = may_be_peaks({t: c[:seen] for t, c in curves.items()}, window)
        assert {p for p in peaks if p < seen} <= candidates
        assert len(candidates) <= min(len(curves), seen) + window // 2


def test_a_score_that_is_not_finite_is_never_best() -> None:
    assert peak([0.1, math.nan, 0.2, math.inf, 0.1]).tick == 2
    assert average({"a": math.nan, "b": 1.0}, ("a", "b")) == -math.inf
    assert average({"a": 1.0, "b": 0.0}, ("a", "b"), [3, 1]) == Fraction(3, 4)


anything = st.floats(allow_nan=False)
outcomes = st.builds(
    Outcome,
    snapshot=st.integers(0, 99),
    scores=st.dictionaries(st.text(max_size=3), anything, max_size=3),
    reports=st.dictionaries(st.text(max_size=3), anything, max_size=3),
    items=st.none() | st.dictionaries(st.text(max_size=3), st.lists(anything, max_size=3).map(tuple), max_size=2),
    lookahead=st.none() | st.dictionaries(st.text(max_size=3), anything, max_size=3),
    losses=st.none() | st.dictionaries(st.text(max_size=3), st.dictionaries(st.integers(0, 9), anything), max_size=2),
    loss=st.none() | st.dictionaries(st.text(max_size=3), anything, max_size=3),
    train_loss=st.none() | anything,
    tokens=st.builds(Tokens, train=st.integers(0), eval=st.integers(0), probe=st.integers(0)),
    bytes=st.integers(0),
)
mixtures = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3, unique=True).flatmap(
    lambda tasks: st.builds(
        Mixture,
        tasks=st.just(tuple(tasks)),
        shares=st.none() | st.just((0.25,) * len(tasks)),
        without=st.frozensets(st.tuples(st.sampled_from(tasks), st.integers(0, 9)), max_size=4),
        replayed=st.frozensets(st.sampled_from(tasks)),
        loss_weights=st.none() | st.just((0.25,) * len(tasks)),
    )
)
segments = st.builds(
    Segment,
    parent=st.integers(0, 99),
    rollout=st.integers(1, 9),
    mixture=mixtures,
    start=st.integers(0, 9),
    stop=st.integers(0, 99),
    epoch=st.floats(0, 10),
    score=st.lists(st.text(max_size=3), max_size=3).map(tuple),
    probes=st.frozensets(st.sampled_from(Probe)),
    keep=st.frozensets(st.integers(1, 9)),
    reset_optimizer=st.booleans(),
    anneal=st.none()
    | st.builds(
        Anneal,
        start=st.integers(0, 9),
        stop=st.integers(10, 99),
        to=st.floats(0, 1),
        shape=st.sampled_from(["linear", "cosine", "sqrt"]),
    ),
    why=st.sampled_from(["search", "candidate", "final"]),
    blend=st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1)), max_size=3).map(tuple),
    ties=st.none() | st.floats(0, 1),
)


@given(outcomes, segments)
def test_the_wire_round_trips_exactly(outcome: Outcome, segment: Segment) -> None:
    """Through JSON text, floats to the last bit, infinities included."""
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome), allow_nan=False))) == outcome
    assert segment_from_json(json.loads(json.dumps(segment_to_json(segment), allow_nan=False))) == segment
    brief = Brief(
        tasks=("a",), sizes=(3,), validation_sizes=(2,), batch_size=1, seed=0, base=outcome, horizon=math.inf,
        eval_every=0.1,
    )  # fmt: skip
    assert brief_from_json(json.loads(json.dumps(brief_to_json(brief), allow_nan=False))) == brief


def test_what_is_new_is_not_in_a_journal_that_does_not_use_it() -> None:
    """Old journals, and their hashes, stay what they are."""
    mixture = Mixture(tasks=("a",))
    assert set(mixture_to_json(mixture)) == {"tasks", "shares", "weights", "without"}
    outcome = Outcome(snapshot=1, scores={}, reports={})
    assert set(outcome_to_json(outcome)) == {
        "snapshot", "scores", "reports", "items", "lookahead", "losses", "train_loss", "tokens", "bytes"
    }  # fmt: skip
    segment = Segment(parent=0, rollout=1, mixture=mixture, start=0, stop=1, epoch=0.0, score=())
    assert set(segment_to_json(segment)) == {
        "parent", "rollout", "mixture", "start", "stop", "epoch", "score", "probes", "keep", "reset_optimizer"
    }  # fmt: skip


def test_a_journal_names_what_is_replayed_only_where_shares_do_not_say_it() -> None:
    """Version 0.1 had no field for it: a share below 1 meant that the sub-dataset was excluded, and replayed."""
    tasks, shares = ("a", "b", "c"), (1.0, 0.1, 0.5)
    old = Mixture(tasks=tasks, shares=shares, replayed=frozenset({"b", "c"}))
    assert "replayed" not in mixture_to_json(old)
    assert mixture_from_json(mixture_to_json(old)).active == ("a",)
    for replayed in (frozenset[str](), frozenset({"c"}), frozenset({"a", "b", "c"})):
        mixture = replace(old, replayed=replayed)
        assert mixture_to_json(mixture)["replayed"] == sorted(replayed)
        assert mixture_from_json(mixture_to_json(mixture)) == mixture


def test_differences_name_the_leaf() -> None:
    was, now = {"a": [1, 2], "b": {"c": 1}, "d": 1}, {"a": [1, 3], "b": {"c": 1, "e": 2}, "d": 1}
    assert differences(was, now) == ["a[1] was 2, is now 3", "b.e was None, is now 2"]


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0, 1), st.sampled_from(["linear", "cosine", "sqrt"]))
def test_an_annealed_rate_falls_from_the_whole_to_its_end(start: int, steps: int, to: float, shape: Any) -> None:
    anneal = Anneal(start=start, stop=start + steps, to=to, shape=shape)
    factors = [anneal.factor(step) for step in range(start + steps + 9)]
    assert factors[: start + 1] == [1.0] * (start + 1)
    assert factors[start + steps :] == pytest.approx([to] * 9, abs=1e-15)
    assert all(after <= before for before, after in itertools.pairwise(factors))


def test_the_shapes_of_an_annealed_rate() -> None:
    def factors(shape: Any) -> list[float]:
        anneal = Anneal(start=2, stop=6, to=0.2, shape=shape)
        return [anneal.factor(step) for step in (0, 2, 3, 4, 5, 6, 9)]

    assert factors("linear") == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2, 0.2])
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * part)) / 2 for part in (0.25, 0.5, 0.75)]
    assert factors("cosine") == pytest.approx([1, 1, *cosine, 0.2, 0.2])
    sqrt = [1 - 0.8 * part**0.5 for part in (0.25, 0.5, 0.75)]
    assert factors("sqrt") == pytest.approx([1, 1, *sqrt, 0.2, 0.2])


def test_a_complaint_names_place_and_mend() -> None:
    assert complaint("found 'x'", "write a number", file="c.yaml", line=3, field="a.b") == (
        "c.yaml:3 a.b: found 'x'. Fix: write a number"
    )


def test_a_mixture_takes_shares_or_samples() -> None:
    with pytest.raises(AssertionError):
        Mixture(tasks=("a",), shares=(1.0,), weights=(1.0,))
