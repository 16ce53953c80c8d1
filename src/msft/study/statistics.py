"""Tests and intervals for differences between methods (design 5). Pure functions on arrays; see docs/statistics.md.

There are three questions. Is a method better *on these sub-datasets*, over training seeds: `t_test` on the
differences per seed, and `sign_flips`, which does not assume a normal distribution. Is it better on sub-datasets
*like these*: `Bootstrap` over seeds, sub-datasets and items. Do *these two models* differ: `item_test`, which does not
compare methods.

Arrays: S seeds, T sub-datasets, n items of a sub-dataset. Metrics are in [0, 1]; differences are paired by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msft.report.intervals import Change, of_average, of_change

Array = NDArray[np.float64]

LEVEL = 0.05
POOL = 0.25
"""A component of variance that is not significant at this level is omitted (Bancroft's preliminary test)."""
FEWEST_FLIPS = 6
"""Minimum number of seeds for sign flips to reject at 5 %: 2 of 2^6 patterns are as extreme as all signs equal."""
MOST_FLIPS = 20
"""Maximum number of seeds for which all sign patterns are enumerated; for more seeds, random patterns are drawn."""
FEWEST_TASKS = 5
"""Minimum number of sub-datasets for an interval over sub-datasets."""
REPLICATES = 2000
CLOSE = 1e-12
"""Values that lie closer together are the same."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None if there is a single value, or all are the same."""

    mean: float
    low: float | None = None
    high: float | None = None


def t_interval(values: Sequence[float] | Array) -> Interval:
    """Mean over seeds, with Student's interval."""
    x = np.asarray(values, float)
    mean = float(x.mean())
    if len(x) < 2 or not np.isfinite(x).all() or np.ptp(x) < CLOSE:
        return Interval(mean)
    reach = float(stats.t.ppf(1 - LEVEL / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - reach, mean + reach)


def t_test(differences: Sequence[float] | Array) -> float | None:
    """Two-sided p of the differences per seed; None if there are too few, or if all are equal, also to 0: seeds that
    agree by chance show neither a difference nor that there is none."""
    d = np.asarray(differences, float)
    if len(d) < 2 or not np.isfinite(d).all() or np.ptp(d) < CLOSE:
        return None
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def seeds_to_show(differences: Sequence[float] | Array, power: float, most: int) -> int | None:
    """The smallest number of seeds with which the 95 % interval would lie on this side of 0 in a share `power` of
    studies, if their differences were normal with the mean and the standard deviation of these; None if that is more
    than `most`, or if all differences are equal, so that their standard deviation is not known."""
    d, seeds = np.asarray(differences, float), np.arange(2, most + 1)
    if np.ptp(d) < CLOSE:
        return None
    effect = abs(d.mean()) / d.std(ddof=1)
    shown = stats.nct.sf(stats.t.ppf(1 - LEVEL / 2, seeds - 1), seeds - 1, effect * np.sqrt(seeds))
    enough = seeds[shown >= power]
    return int(enough[0]) if len(enough) else None


def sign_flips(differences: Sequence[float] | Array) -> float | None:
    """Two-sided p by flipping the signs of the differences per seed: exact up to 20 seeds; None below 6.

    The only assumption: if the methods do not differ, both signs are equally likely.
    """
    d = np.asarray(differences, float)
    if len(d) < FEWEST_FLIPS or not np.isfinite(d).all():
        return None
    if len(d) <= MOST_FLIPS:
        sums = np.zeros(1)
        for value in d:
            sums = np.concatenate([sums + value, sums - value])
    else:
        signs = np.random.default_rng(0).integers(0, 2, size=(2**17, len(d))) * 2 - 1
        sums = np.concatenate([signs @ d, [d.sum()]])
    return float(np.mean(np.abs(sums) >= abs(d.sum()) - 1e-12))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values for several comparisons: they control the family-wise error rate."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted


def item_test(one: Sequence[Array], two: Sequence[Array]) -> float | None:
    """Two-sided p that these two models differ in the macro-average, as `msft report` tests two runs; one array per
    sub-dataset of the items, whose mean is the metric. None where the items do not tell how far they vary.

    It compares the two models only: their difference also depends on the seed, which this test does not consider.
    """
    parts: list[Change] = []
    for now, was in zip(one, two, strict=True):
        change = of_change(was.tolist(), now.tolist(), float(was.mean()), float(now.mean()))
        if change is None:
            return None
        parts.append(change)
    return of_average(parts).p


def crossed_error(differences: Array) -> tuple[float, float]:
    """Standard error and degrees of freedom of the mean of an (S, T) table in which rows and columns are random.

    With mean squares A of seeds, B of sub-datasets (or items) and R of the residual, the variance of the mean is
    (A + B - R) / (S T), with Satterthwaite's degrees of freedom. If B is not larger than R by an F test at 25 %, the
    variance is A / (S T) with S - 1 degrees of freedom, as in Student's test on the seeds.
    """
    rows, columns = differences.shape
    mean = differences.mean()
    by_row, by_column = differences.mean(1) - mean, differences.mean(0) - mean
    rest = differences - mean - by_row[:, None] - by_column
    a = columns * float(by_row @ by_row) / (rows - 1)
    if columns > 1:
        b = rows * float(by_column @ by_column) / (columns - 1)
        r = float((rest**2).sum()) / ((rows - 1) * (columns - 1))
        varies = b > r and (r == 0 or stats.f.sf(b / r, columns - 1, (rows - 1) * (columns - 1)) < POOL)
        if varies and a + b - r > 0:
            parts = a**2 / (rows - 1) + b**2 / (columns - 1) + r**2 / ((rows - 1) * (columns - 1))
            return math.sqrt((a + b - r) / (rows * columns)), max(1.0, (a + b - r) ** 2 / parts)
    return math.sqrt(a / (rows * columns)), rows - 1.0


class Bootstrap:
    """Hierarchical bootstrap of macro-averages: seeds, sub-datasets and the items of each are resampled.

    `sizes`: number of items of each sub-dataset; all seeds have the same items, so they share a draw. The draws are
    made once and used for every comparison of a study.

    Resampling on three levels counts the variance that seeds, sub-datasets and items share several times: without
    correction, the intervals reject a true difference of 0 in 0.2 % of studies. So the bootstrap gives the shape of
    the interval only, and `crossed_error` gives the width.
    """

    def __init__(self, seeds: int, sizes: Sequence[int], replicates: int = REPLICATES) -> None:
        random = np.random.default_rng(20)
        self._seeds = _draws(random, seeds, replicates)
        self._tasks = _draws(random, len(sizes), replicates)
        self._items = [_draws(random, size, replicates) for size in sizes]

    def interval(self, differences: Sequence[Array]) -> Interval | None:
        """Interval of the macro-average of paired differences, one (S, n) table per sub-dataset; S is at least 2.

        None if there are too few sub-datasets to generalise to others, or if the differences do not vary.
        """
        if len(differences) < FEWEST_TASKS:
            return None
        table = np.stack([d.mean(1) for d in differences], axis=1)
        drawn = [_twice(self._seeds, d, items) for d, items in zip(differences, self._items, strict=True)]
        replicates = np.einsum("bt,bt->b", np.stack(drawn, axis=1), self._tasks)
        found = _scaled(float(table.mean()), replicates, *crossed_error(table))
        return None if found.low is None else found

    def task_interval(self, task: int, differences: Array) -> Interval:
        """Interval of one sub-dataset: seeds and items are resampled."""
        replicates = _twice(self._seeds, differences, self._items[task])
        return _scaled(float(differences.mean()), replicates, *crossed_error(differences))


def _draws(random: np.random.Generator, count: int, replicates: int) -> Array:
    """Each row: the frequency with which each of `count` is drawn, as weights that sum to 1."""
    return random.multinomial(count, np.full(count, 1 / count), size=replicates) / count


def _twice(rows: Array, table: Array, columns: Array) -> Array:
    """The weighted mean of a table for each pair of draws of its rows and its columns."""
    means: Array = np.einsum("bs,bs->b", rows, columns @ table.T)
    return means


def _scaled(mean: float, replicates: Array, error: float, freedom: float) -> Interval:
    """The quantiles of the replicates about the mean, scaled so that their spread equals the standard error; without
    ends where nothing varies, as an interval of width 0 would claim to be sure."""
    spread = float(replicates.std())
    if min(spread, error) < CLOSE:
        return Interval(mean)
    factor = error / spread * float(stats.t.ppf(1 - LEVEL / 2, freedom) / stats.norm.ppf(1 - LEVEL / 2))
    low, high = np.quantile(replicates - replicates.mean(), [LEVEL / 2, 1 - LEVEL / 2])
    return Interval(mean, mean + factor * float(low), mean + factor * float(high))
