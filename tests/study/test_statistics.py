"""The statistics against hand-made cases and against simulated truth (design 5)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from run_folders import NAMES, make_run
from scipy import stats
from simulated_truth import rejections

from msft.report.cautions import learnable
from msft.report.several import find_runs, macro_gap
from msft.study.statistics import (
    Bootstrap,
    Interval,
    crossed_error,
    holm,
    item_test,
    seeds_to_show,
    sign_flips,
    t_interval,
    t_test,
)


def test_under_no_difference_the_t_test_rejects_five_per_cent() -> None:
    found = rejections(1000, bootstrap=False, items=60)
    assert 0.03 <= found["t"] <= 0.07
    assert found["items"] > 0.09, "a test on items would do for methods, and this file need not exist"


def test_under_no_difference_the_bootstrap_rejects_five_per_cent() -> None:
    assert 0.03 <= rejections(1000, items=60, replicates=300)["bootstrap"] <= 0.07


def test_the_bootstrap_alone_takes_sub_datasets_as_drawn_at_random() -> None:
    """Where methods differ by sub-dataset, on average by nothing, a test on seeds is wrong about others like them."""
    found = rejections(300, items=60, seeds=20, effect_sd=0.03, replicates=300)
    assert found["t"] > 0.12
    assert found["bootstrap"] < 0.1


def test_two_points_are_found_more_often_with_more_seeds() -> None:
    power = [rejections(200, bootstrap=False, effect=0.02, seeds=seeds)["t"] for seeds in (3, 6, 20)]
    assert power[0] < power[1] < power[2]
    assert power[1] > 0.3
    assert power[2] > 0.9


@pytest.mark.campaign
@pytest.mark.parametrize("truth", [{}, {"effect_sd": 0.02}, {"seed_sd": 0.02, "interaction_sd": 0.01}, {"seeds": 10}])
def test_at_full_size_the_tests_keep_their_level(truth: dict[str, float]) -> None:
    found = rejections(1000, **truth)
    assert 0.03 <= found["bootstrap"] <= 0.07
    if "effect_sd" not in truth:
        assert 0.03 <= found["t"] <= 0.07


def test_t_test_is_students() -> None:
    d = [0.01, 0.03, -0.005, 0.02]
    assert t_test(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    interval = t_interval(d)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(d), scale=stats.sem(d))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert t_test([0.1]) is None
    assert t_interval([0.1]).low is None


@pytest.mark.parametrize("same", [0.0, 0.125])
def test_seeds_that_agree_to_the_last_digit_prove_nothing(same: float) -> None:
    """Not a difference, and not that there is none: no interval has width 0."""
    d = [same] * 3
    assert t_test(d) is None and t_interval(d) == Interval(same)
    with np.errstate(all="raise"):
        assert seeds_to_show(d, 0.5, 100) is None
    tables = [np.full((3, 8), same)] * 6
    draws = Bootstrap(3, [8] * 6, 50)
    assert draws.interval(tables) is None
    assert draws.task_interval(0, tables[0]) == Interval(pytest.approx(same))  # type: ignore[arg-type]
    # Each seed wins two items, but others: their means agree, and the interval over seeds would have width 0.
    items = np.array([[1, 1, 0, 0, 0, 0.0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    assert Bootstrap(3, [6], 50).task_interval(0, items) == Interval(pytest.approx(1 / 3))  # type: ignore[arg-type]


def test_sign_flips_count_every_pattern() -> None:
    d = np.array([0.02, 0.01, -0.004, 0.03, 0.015, 0.002])
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=6)]
    assert sign_flips(d) == np.mean([s >= abs(d.sum()) - 1e-12 for s in sums])
    assert sign_flips(np.full(6, 0.01)) == 2 / 64
    assert sign_flips(d[:5]) is None, "five seeds cannot reach 5 %"
    assert sign_flips(np.full(25, 0.01)) < 0.001


def test_holm_is_holms() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_item_test_is_paired() -> None:
    draw = np.random.default_rng(0)
    was = [draw.uniform(0.2, 0.6, size) for size in (400, 100)]
    now = [x + draw.normal(0.02, 0.1, len(x)) for x in was]
    gaps = [b - a for a, b in zip(was, now, strict=True)]
    error = np.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps)) / 2
    expected = 2 * stats.norm.sf(abs(np.mean([gap.mean() for gap in gaps])) / error)
    assert item_test(now, was) == pytest.approx(expected, rel=0.05)
    assert item_test([np.zeros(50)], [np.zeros(50)]) == 1.0
    assert item_test([np.array([0.4])], [np.array([0.5])]) is None, "the items were not recorded"


def test_item_test_is_the_one_of_the_report(tmp_path: Path) -> None:
    """On few items, a normal approximation finds differences that `msft report` does not show."""
    assert (item_test([np.ones(2)], [np.zeros(2)]) or 0) > 0.05, "exactly: 0.5"
    for method in ("sft", "msft"):
        make_run(tmp_path / method, method, items=8)
    sft, msft = find_runs([tmp_path])
    one, two = ([np.array(run.items(task)) for task in NAMES] for run in (msft, sft))
    assert item_test(one, two) == pytest.approx(macro_gap(msft, sft).p)


def test_a_table_without_differences_between_columns_is_students_test() -> None:
    draw = np.random.default_rng(3)
    table = np.repeat(draw.normal(0.01, 0.02, (6, 1)), 12, axis=1)
    error, freedom = crossed_error(table)
    assert error == pytest.approx(stats.sem(table.mean(1)))
    assert freedom == 5


def test_differences_between_columns_widen_the_interval() -> None:
    draw = np.random.default_rng(3)
    noise = draw.normal(0, 0.01, (6, 12))
    even, uneven = noise, noise + draw.normal(0, 0.05, (1, 12))
    assert crossed_error(uneven)[0] > 2 * crossed_error(even)[0]


def test_few_sub_datasets_say_nothing_of_others() -> None:
    tables = [np.random.default_rng(i).normal(size=(4, 30)) for i in range(4)]
    assert Bootstrap(4, [30] * 4, 50).interval(tables) is None


def test_the_same_data_give_the_same_interval() -> None:
    tables = [np.random.default_rng(i).normal(size=(4, 30)) for i in range(6)]
    one, two = (Bootstrap(4, [30] * 6, 100).interval(tables) for _ in range(2))
    assert one == two
    assert one is not None
    assert one.low is not None
    assert one.low < one.mean


def test_learnable_asks_for_three_standard_errors() -> None:
    assert not learnable(0.25, 0.35, 60)
    assert learnable(0.25, 0.35, 1000)
    assert not learnable(0.0, 0.0, 1000)
    assert not learnable(0.5, 0.9, 0)
