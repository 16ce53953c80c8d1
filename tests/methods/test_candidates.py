"""Which points may become the final model: with `candidates: ticks` every evaluation, found by brute force."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest

from msft.core.curves import average
from msft.core.vocabulary import ROOT, Brief
from msft.core.wire import brief_from_json, brief_to_json
from msft.methods import METHODS
from msft.methods.msft import RELEASE
from msft.testing import conformance
from msft.testing.fake import Curve, FakeEngine

TICKS = {"score_excluded": "tick", "candidates": "ticks"}
SIZES = {"a": 17, "b": 30, "c": 24}


def engine_of(seed: int, exact: bool = False) -> FakeEngine:
    draw = random.Random(seed)
    curves = {task: Curve(peak=draw.choice([0.6, 1.7, 3.0, 5.0]), fall=draw.random() / 4) for task in SIZES}
    return FakeEngine(curves, SIZES, items=draw.choice([0, 12]) * (not exact), interference=0.1 * draw.random())


def searched(
    method: str, seed: int, *, exact: bool = False, **changes: Any
) -> tuple[int, conformance.Journal, FakeEngine, Brief]:
    engine = engine_of(seed, exact)
    brief = conformance.brief_for(METHODS[method], engine, horizon=6.0, **changes)
    return *conformance.run(METHODS[method], brief, engine), engine, brief


def mean_of(engine: FakeEngine, snapshot: int) -> Fraction | float:
    scores = {task: sum(items) / len(items) for task in SIZES for items in [engine.score(snapshot, task)]}
    return average(scores, list(SIZES))


@pytest.mark.parametrize("method", ["msft", "one_pass", "sft"])
@pytest.mark.parametrize("seed", range(12))
def test_the_final_model_is_the_best_of_all_evaluations(method: str, seed: int) -> None:
    answer, journal, engine, brief = searched(method, seed, **TICKS)
    places = [ROOT, *(o.snapshot for s, o in journal if s.trains)]
    assert all(set(s.score) == set(brief.tasks) for s, _ in journal if s.trains)
    best = max(mean_of(engine, snapshot) for snapshot in places)
    # The earliest of the best; a roll-out's ticks come before the points at which the search decides.
    assert answer == next(snapshot for snapshot in places if mean_of(engine, snapshot) == best)


@pytest.mark.parametrize("method", ["sro", "placebo"])
def test_the_second_run_is_evaluated_like_plain_fine_tuning(method: str) -> None:
    """Its exclusion points alone would be few candidates beside those of the methods that it is compared with."""
    more = 0
    for seed in range(4):
        few, fewer, engine, _ = searched(method, seed, exact=True)
        answer, journal, same, brief = searched(method, seed, exact=True, **TICKS)
        clock = conformance.Clock.of(brief)
        more += len(journal) > len(fewer)
        for segment, _ in journal:
            assert segment.stop - segment.start <= -(-clock.steps_per_epoch(segment.mixture) // 4)
        assert mean_of(same, answer) >= mean_of(engine, few) - Fraction(1, 10**9)
    assert more >= 2


def test_some_better_evaluation_was_passed_by() -> None:
    """The rule is worth having: with points of decision only, some of these searches end with a worse model."""
    gains = []
    for seed in range(12):
        before, _, engine, _ = searched("msft", seed)
        after, _, same, _ = searched("msft", seed, **TICKS)
        gains.append(mean_of(same, after) - mean_of(engine, before))
    assert min(gains) >= 0 and sum(gain > 0 for gain in gains) >= 3


def test_the_last_point_is_chosen_as_before() -> None:
    for seed in range(4):
        assert searched("msft", seed, select="last")[0] == searched("msft", seed, select="last", **TICKS)[0]


def test_the_papers_release_decides_as_the_paper_does() -> None:
    assert RELEASE["score_excluded"] == "rollout"


def test_scoring_every_tick_alone_makes_no_candidates() -> None:
    """So that journals of version 0.1 with `score_excluded: tick` replay to their final model."""
    for seed in range(12):
        assert searched("msft", seed)[0] == searched("msft", seed, score_excluded="tick")[0]


def test_the_journal_names_the_rule_only_where_it_is_the_new_one() -> None:
    *_, brief = searched("msft", 0, **TICKS)
    assert brief_to_json(brief)["candidates"] == "ticks"
    assert brief_from_json(brief_to_json(brief), brief.params) == brief
    *_, old = searched("msft", 0, score_excluded="tick")
    assert "candidates" not in brief_to_json(old)
