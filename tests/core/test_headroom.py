"""The headroom: against a plain calculation, and its expectation and coverage in simulation."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from msft.core.headroom import HALVINGS, Evidence, Measured, evidence, halves, headroom, moments, unreached
from msft.core.vocabulary import Outcome
from msft.report.gains import measure


def curves_with_items(seed: int, items: int, ticks: int = 8, *, logs: bool = False) -> Evidence:
    """Three sub-datasets that peak at ticks 2, 4 and 7; `items` right or wrong answers each."""
    dice = random.Random(seed)
    scores = {}
    for task, top in (("early", 2), ("middle", 4), ("late", 7)):
        rows = []
        skill = [dice.random() for _ in range(items)]
        for tick in range(ticks):
            level = 0.8 - 0.06 * abs(tick - top)
            rows.append(tuple(float(s < level) for s in skill))
        if logs:
            rows = [tuple(-2.0 + 1.5 * x for x in row) for row in rows]
        scores[task] = Measured(rows, logs=logs)
    return Evidence(epochs=[tick / 2 for tick in range(ticks)], scores=scores, metrics=scores)


def by_hand(found: Evidence) -> float:
    """The cross-fitted gain, written out."""

    def score(task: str, tick: int, half: list[int]) -> float:
        mean = fmean(found.scores[task].values[tick][i] for i in half)
        return math.exp(mean) if found.scores[task].logs else mean

    def best(curve: list[float]) -> int:
        smooth = [round(fmean(curve[max(0, i - 1) : i + 2]), 10) for i in range(len(curve))]
        return smooth.index(max(smooth))

    gains = []
    tasks, ticks = list(found.scores), range(len(found.epochs))
    for split in range(HALVINGS):
        parts = {task: halves(found.items(task), task, split) for task in tasks}
        for a, b in ((0, 1), (1, 0)):
            read = {task: [score(task, tick, parts[task][a]) for tick in ticks] for task in tasks}
            common = best([fmean(read[task][tick] for task in tasks) for tick in ticks])
            for task in tasks:
                gains.append(score(task, best(read[task]), parts[task][b]) - score(task, common, parts[task][b]))
    return fmean(gains)


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("items", [11, 40])
def test_both_forms_agree_with_a_calculation_by_hand(items: int, logs: bool) -> None:
    found = curves_with_items(items, items, logs=logs)
    room, gains = headroom(found), measure(found, replicates=4)
    assert room.score == pytest.approx(by_hand(found), abs=1e-12)
    assert gains.score.estimate == pytest.approx(room.score, abs=1e-12)
    assert gains.metric.estimate == pytest.approx(room.metric, abs=1e-12)
    assert gains.score.plug_in >= gains.score.estimate


def test_halves_split_all_items_and_differ_between_splits_and_tasks() -> None:
    for items in (4, 5, 100):
        first, second = halves(items, "a", 0)
        assert sorted(first + second) == list(range(items)) and len(second) - len(first) in (0, 1)
    made = {tuple(halves(100, task, split)[0]) for task in "ab" for split in range(HALVINGS + 1)}
    assert len(made) == 2 * HALVINGS + 2


def test_moments_and_unreached_peaks() -> None:
    found = curves_with_items(1, 400)
    read = moments({task: m.exact() for task, m in found.scores.items()})
    assert [read.own[task] for task in ("early", "middle", "late")] == [2, 4, 7]
    assert unreached(found, read) == ("late",)


def test_a_peak_that_the_curve_has_left_is_reached() -> None:
    """In a short run too: most of its ticks lie in the last window."""
    curves = {
        "risen": (0.1, 0.2, 0.3, 0.4, 0.5),
        "turned": (0.1, 0.3, 0.7, 0.7, 0.5),
        "fallen": (0.3, 0.44, 0.42, 0.35, 0.26),
    }
    scores = {task: Measured([(score,) * 6 for score in curve], logs=False) for task, curve in curves.items()}
    found = Evidence(epochs=list(range(5)), scores=scores, metrics=scores)
    read = moments({task: m.exact() for task, m in found.scores.items()})
    assert read.own == {"risen": 4, "turned": 3, "fallen": 2}
    assert unreached(found, read) == ("risen", "turned")


def test_equal_peaks_have_no_headroom() -> None:
    rows = [(0.1,) * 8, (0.5,) * 8, (0.4,) * 8, (0.3,) * 8]
    same = {task: Measured(rows, logs=False) for task in "ab"}
    found = Evidence(epochs=[0, 1, 2, 3], scores=same, metrics=same)
    assert headroom(found).score == 0 and headroom(found).error == 0


def test_the_base_model_is_a_moment() -> None:
    """A sub-dataset that only loses is best read at tick 0."""
    falls = Measured([(0.9 - 0.1 * tick,) * 6 for tick in range(6)], logs=False)
    rises = Measured([(0.1 + 0.2 * tick,) * 6 for tick in range(6)], logs=False)
    found = Evidence(epochs=list(range(6)), scores={"a": falls, "b": rises}, metrics={"a": falls, "b": rises})
    assert headroom(found).score == pytest.approx(0.25)


def test_evidence_needs_every_item_of_every_sub_dataset() -> None:
    def outcome(tasks: str, *, items: int = 6, value: float = 0.5) -> Outcome:
        kept = dict.fromkeys(tasks, (value,) * items)
        means = dict.fromkeys(tasks, value)
        return Outcome(snapshot=1, scores=means, reports=means, items=kept, metrics=kept)

    whole = [(float(i), outcome("ab")) for i in range(4)]
    found = evidence(whole, ("a", "b"))
    assert found is not None and len(found.epochs) == 4
    assert evidence([*whole, (4.0, outcome("a")), (5.0, outcome("ab"))], ("a", "b")) == found
    assert evidence(whole[:2], ("a", "b")) is None
    assert evidence([(e, outcome("ab", items=3)) for e, _ in whole], ("a", "b")) is None
    assert evidence([(e, outcome("ab", value=math.nan)) for e, _ in whole], ("a", "b")) is None
    logs = {"a": (-1.0, -3.0, -2.0, -2.0)}
    point = Outcome(snapshot=1, scores={"a": math.exp(-2)}, reports={"a": -2.0}, items=logs, metrics=logs)
    read = evidence([(0.0, point)] * 3, ("a",))
    assert read is not None and read.scores["a"].logs and not read.metrics["a"].logs
    assert fmean(read.scores["a"].changes(1, 0)) == 0
