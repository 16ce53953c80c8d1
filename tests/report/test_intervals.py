"""Intervals against exact references, at the ends of what can be seen too, and how often they hold the truth."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy.stats import binom, binomtest, norm

from msft.report.intervals import Change, Interval, Z, of_answers, of_average, of_change, of_items, tango, wilson

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
WILSON = {(0, 18): (0.0, 0.17588), (18, 18): (0.82412, 1.0), (1, 2): (0.09453, 0.90547), (81, 263): (0.25527, 0.36621)}
"""By formula; 81 of 263 is the example of Newcombe (1998), 0.2553 to 0.3662."""
TANGO = {(1, 7, 21): (-0.517, -0.026), (0, 0, 18): (-0.17588, 0.17588), (18, 0, 18): (0.64824, 1.0)}
"""The first: airway data in Fagerland, Lydersen and Laake (2014). Without discordant pairs it is ± z² / (n + z²)."""


def symmetric(value: float, half: float) -> Change:
    """A change whose 95 % interval is `value` plus and minus `half`."""

    def within(z: float) -> Interval:
        return value - half * z / Z, value + half * z / Z

    return Change(value, within)


def changed(was: list[float], now: list[float]) -> Change:
    found = of_change(was, now, fmean(was), fmean(now))
    assert found is not None
    return found


@pytest.mark.parametrize(("right", "items"), WILSON)
def test_an_accuracy_has_wilsons_interval(right: int, items: int) -> None:
    theirs = binomtest(right, items).proportion_ci(method="wilson")
    for found in (wilson(right / items, items), of_items(right / items, [1.0] * right + [0.0] * (items - right))):
        assert found == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert found == pytest.approx(WILSON[right, items], abs=1e-4)


@pytest.mark.parametrize(("gained", "lost", "items"), TANGO)
def test_a_change_of_an_accuracy_has_tangos_interval(gained: int, lost: int, items: int) -> None:
    assert tango(gained, lost, items) == pytest.approx(TANGO[gained, lost, items], abs=5e-4)
    low, high = tango(lost, gained, items)
    assert tango(gained, lost, items) == pytest.approx((-high, -low), abs=1e-12)
    was = [0.0] * gained + [1.0] * lost + [1.0] * (items - gained - lost)
    now = [1.0] * gained + [0.0] * lost + [1.0] * (items - gained - lost)
    found = of_change(was, now, sum(was) / items, sum(now) / items)
    assert found is not None and found.interval == tango(gained, lost, items)


def test_tangos_interval_is_what_mcnemars_test_does_not_reject() -> None:
    for items in (5, 20, 60):
        for gained in range(items + 1):
            for lost in range(items + 1 - gained):
                low, high = tango(gained, lost, items)
                assert low <= (gained - lost) / items <= high
                discordant = gained + lost
                rejected = bool(discordant) and abs(gained - lost) / math.sqrt(discordant) > Z
                assert rejected == (not low <= 0 <= high)


def test_no_interval_has_no_width() -> None:
    equal = [0.0, 1.0, 0.5]
    for value in equal:
        low, high = of_items(value, [value] * 18) or (0.0, 0.0)
        assert high - low > 0.17
    for value in (0.0, 1.0):
        low, high = changed([value] * 18, [value] * 18).interval
        assert low < -0.17 and high > 0.17
    # Scores that all change alike do not tell how others would change.
    assert of_change([0.25] * 18, [0.5] * 18, 0.25, 0.5) is None
    assert of_change([-1.0] * 18, [-1.0] * 18, math.exp(-1), math.exp(-1)) is None
    assert of_items(0.5, [0.5]) is None
    assert of_change([1.0], [0.0], 1.0, 0.0) is None


def test_soft_items_count_as_the_yes_no_items_that_vary_as_much() -> None:
    hard = [1.0, 0.0] * 40
    soft = [0.75, 0.25] * 40  # a quarter of the variance
    low, high = of_items(0.5, soft) or (0.0, 0.0)
    wide = of_items(0.5, hard) or (0.0, 0.0)
    assert (high - low) / (wide[1] - wide[0]) == pytest.approx(0.5, rel=0.05)


def test_an_average_carries_the_uncertainty_of_each_part() -> None:
    sure, unknown = symmetric(0.1, 0.05), symmetric(0.0, 0.176)
    low, high = of_average([sure, unknown]).interval
    assert (low, high) == pytest.approx((0.05 - math.hypot(0.05, 0.176) / 2, 0.05 + math.hypot(0.05, 0.176) / 2))
    assert of_average([sure]).interval == pytest.approx((0.05, 0.15))
    # Symmetric intervals: as with standard errors.
    low, high = of_average([symmetric(0.1, 0.1)] * 4).interval
    assert (low, high) == pytest.approx((0.05, 0.15))


def test_p_and_interval_agree() -> None:
    assert symmetric(0.1, 0.1).p == pytest.approx(0.05, rel=1e-4)
    assert symmetric(0.1, 0.0999).p < 0.05 < symmetric(0.1, 0.1001).p
    assert symmetric(0.0, 0.1).p == 1.0
    assert symmetric(-0.1, 0.1).p == pytest.approx(0.05, rel=1e-4)
    assert symmetric(0.3, 0.1).p == pytest.approx(2 * norm.sf(3 * Z), rel=1e-3)
    assert symmetric(0.3, 0.01).p == 0.0


def test_p_of_right_and_wrong_answers_is_mcnemars() -> None:
    """Of few items that differ it was much too small: it was read from the near end of the 95 % interval."""
    for gained, lost, items in ((7, 0, 200), (10, 0, 100), (12, 1, 300), (1, 0, 100), (3, 9, 40), (40, 12, 80)):
        z = abs(gained - lost) / math.sqrt(gained + lost)
        found = of_answers(gained, lost, items)
        assert found.p == pytest.approx(2 * norm.sf(z), rel=1e-3)
        assert of_average([found]).p == pytest.approx(found.p)
        for errors in (2.0, 3.0):
            assert found.shown(errors) == (z > errors)


def test_false_alarms_are_as_rare_as_p_says() -> None:
    """Exactly, where 10 % of 100 items differ by chance; below 0.001, it was one in 270."""
    alarms = dict.fromkeys((0.05, 0.01, 0.001), 0.0)
    for differ in range(35):
        for gained in range(differ + 1):
            chance = binom.pmf(differ, 100, 0.1) * binom.pmf(gained, differ, 0.5)
            if chance > 1e-7:
                p = of_answers(gained, differ - gained, 100).p
                alarms = {level: found + chance * (p < level) for level, found in alarms.items()}
    assert alarms[0.05] < 0.06 and alarms[0.01] < 0.012 and alarms[0.001] < 0.001


def measured(kind: str, items: int) -> tuple[float, float]:
    benchmark: dict[str, Any] = runpy.run_path(str(BENCHMARK))
    mean, least = benchmark["coverage"](kind, items)
    return float(mean), float(least)


@pytest.mark.parametrize("items", [20, 80, 400])
def test_wilsons_interval_holds_the_truth_as_often_as_it_says(items: int) -> None:
    mean, least = measured("accuracy", items)
    assert 0.93 <= mean <= 0.97
    assert least > 0.89


@pytest.mark.campaign
@pytest.mark.parametrize("items", [20, 80, 400])
@pytest.mark.parametrize(
    "kind",
    ["mean of scores in [0, 1]", "exp(−NLL)", "change of an accuracy", "change of exp(−NLL)",
     "average of four changes of accuracies"],
)  # fmt: skip
def test_every_interval_holds_the_truth_as_often_as_it_says(kind: str, items: int) -> None:
    mean, _ = measured(kind, items)
    assert 0.93 <= mean <= 0.97
