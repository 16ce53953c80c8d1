"""95 % intervals from the items of a split: of one model's score, and of the difference between two models' scores.

They are right at the ends too: where no item differs, that is no proof that none would, and no interval has width 0.
`docs/statistics.md` has their coverage, `benchmarks/interval_coverage.py` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
ENOUGH = 60
"""Bisections: the interval is then exact to the last bit."""


def wilson(share: float, items: float, z: float = Z) -> Interval:
    """Wilson's score interval for the share of `items` that are right."""
    centre = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = z * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items)) / (1 + z * z / items)
    return max(0.0, centre - half), min(1.0, centre + half)


def of_items(report: float, items: Sequence[float]) -> Interval | None:
    """Interval of a metric in [0, 1]: the mean of its items or, for log-probabilities, the exponential of the mean.

    Items that are neither 0 nor 1 count as the number of yes/no items that would vary as much. None if there are too
    few items or the metric is not finite.
    """
    if len(items) < 2 or not math.isfinite(report):
        return None
    if set(items) <= {0.0, 1.0}:
        return wilson(report, len(items))
    variance = _variance(items)
    if variance == 0:
        return wilson(min(1.0, max(0.0, report)), len(items))  # the most that a metric in [0, 1] can vary
    if math.isclose(fmean(items), report, abs_tol=1e-6) and 0 < report < 1:
        return wilson(report, len(items) * report * (1 - report) / variance, _t(len(items)))
    half = _t(len(items)) * report * math.sqrt(variance / len(items))  # the delta method
    return max(0.0, report - half), min(1.0, report + half)


def of_change(was: Sequence[float], now: Sequence[float], base: float, answer: float) -> Interval | None:
    """Interval of `answer - base`, paired over the items; within [-1, 1].

    Both metrics are the mean of their items or, for log-probabilities, the exponential of the mean. None if they are
    neither, or if the items leave their spread unknown.
    """
    if len(was) != len(now) or len(now) < 2:
        return None
    for slope_base, slope_answer, carried in ((1.0, 1.0, fmean), (base, answer, _exp_mean)):
        if _is(carried, was, base) and _is(carried, now, answer):
            if {*was, *now} <= {0.0, 1.0}:
                pairs = list(zip(was, now, strict=True))
                return tango(pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0)), len(pairs))
            gaps = [slope_answer * b - slope_base * a for a, b in zip(was, now, strict=True)]
            if (variance := _variance(gaps)) == 0:
                return None
            half = _t(len(gaps)) * math.sqrt(variance / len(gaps))
            return max(-1.0, answer - base - half), min(1.0, answer - base + half)
    return None


def tango(gained: int, lost: int, items: int) -> Interval:
    """Tango's score interval for the difference of two shares of the same items: `gained` are right in the second only,
    `lost` in the first only. It holds the differences that a score test, such as McNemar's, does not reject."""

    def distance(of: float) -> float:
        """Standard errors between what was seen and a true difference."""
        b = (2 * items - gained + lost) * of - gained - lost
        lost_share = (math.sqrt(b * b + 8 * items * lost * of * (1 - of)) - b) / (4 * items)
        variance = items * (2 * lost_share + of * (1 - of))
        apart = gained - lost - items * of
        return apart / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, apart) if apart else 0.0

    seen = (gained - lost) / items
    return (
        _border(-1.0, seen, lambda of: distance(of) > Z),
        _border(1.0, seen, lambda of: distance(of) < -Z),
    )


def of_average(parts: Sequence[tuple[float, Interval]]) -> Interval:
    """Interval of the average of independent values, from the value and the interval of each (MOVER, Zou 2008)."""
    centre = fmean([value for value, _ in parts])
    below = math.sqrt(math.fsum((value - low) ** 2 for value, (low, _) in parts)) / len(parts)
    above = math.sqrt(math.fsum((high - value) ** 2 for value, (_, high) in parts)) / len(parts)
    return max(-1.0, centre - below), min(1.0, centre + above)


def p_of(difference: float, interval: Interval) -> float:
    """Two-sided p of "no difference": below 0.05 exactly if the 95 % interval does not hold 0."""
    if difference == 0:
        return 1.0
    low, high = interval
    reach = difference - low if difference > 0 else high - difference
    return math.erfc(Z * abs(difference) / reach / math.sqrt(2)) if reach > 0 else 0.0


def _border(outside: float, inside: float, rejected: Callable[[float], bool]) -> float:
    """The border between differences that are rejected and those that are not."""
    if not rejected(outside):
        return outside
    for _ in range(ENOUGH):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if rejected(middle) else (outside, middle)
    return inside


def _t(items: int) -> float:
    """97.5 % quantile of Student's distribution with items - 1 degrees of freedom."""
    from scipy.special import stdtrit  # imported here: most commands need no interval

    return float(stdtrit(items - 1, 0.975))


def _is(carried: Callable[[Sequence[float]], float], items: Sequence[float], metric: float) -> bool:
    return math.isclose(carried(items), metric, abs_tol=1e-6)


def _variance(values: Sequence[float]) -> float:
    centre = fmean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def _exp_mean(values: Sequence[float]) -> float:
    centre = fmean(values)
    return math.exp(centre) if centre <= 0 else math.inf
