"""95 % intervals from the items of a split: of one model's score, and of the difference between two models' scores.

They are right at the ends too: where no item differs, that is no proof that none would, and no interval has width 0.
`docs/statistics.md` has their coverage, `benchmarks/interval_coverage.py` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
ENOUGH = 60
"""Bisections: the interval is then exact to the last bit."""
FAR, STEPS = 10.0, 20
"""Standard errors beyond which p is 0 (1e-23), and bisections until then: p is exact to four digits."""


@dataclass(frozen=True, slots=True)
class Change:
    """A difference of two scores, in [-1, 1], with its interval at every level."""

    value: float
    within: Callable[[float], Interval]
    """The interval that reaches so many standard errors to both sides: 1.96 give that of 95 %."""

    @property
    def interval(self) -> Interval:
        """That of 95 %."""
        return self.within(Z)

    def shown(self, errors: float) -> bool:
        """Whether the interval of so many standard errors does not hold 0."""
        low, high = self.within(errors)
        return not low <= 0 <= high

    @property
    def p(self) -> float:
        """Two-sided p of "no difference": that of the interval that ends at 0. So it is below 0.05 exactly if the 95 %
        interval does not hold 0, and of right and wrong answers it is McNemar's."""
        if self.shown(FAR):
            return 0.0
        known = self.shown(Z)
        low, high = (Z, FAR) if known else (0.0, Z)
        for _ in range(STEPS if self.value else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if self.shown(middle) else (low, middle)
        return math.erfc((high if known else low) / math.sqrt(2))


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


def of_change(was: Sequence[float], now: Sequence[float], base: float, answer: float) -> Change | None:
    """`answer - base` with its intervals, paired over the items; within [-1, 1].

    Both metrics are the mean of their items or, for log-probabilities, the exponential of the mean. None if they are
    neither, or if the items leave their spread unknown.
    """
    if len(was) != len(now) or len(now) < 2:
        return None
    for slope_base, slope_answer, carried in ((1.0, 1.0, fmean), (base, answer, _exp_mean)):
        if _is(carried, was, base) and _is(carried, now, answer):
            if {*was, *now} <= {0.0, 1.0}:
                pairs = list(zip(was, now, strict=True))
                return of_answers(pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0)), len(pairs))
            gaps = [slope_answer * b - slope_base * a for a, b in zip(was, now, strict=True)]
            if (variance := _variance(gaps)) == 0:
                return None
            return _symmetric(answer - base, _t(len(gaps)) / Z * math.sqrt(variance / len(gaps)))
    return None


def of_answers(gained: int, lost: int, items: int) -> Change:
    """The difference of two shares of right answers to the same items; see `tango`."""
    return Change((gained - lost) / items, lambda z: tango(gained, lost, items, z))


def tango(gained: int, lost: int, items: int, z: float = Z) -> Interval:
    """Tango's score interval for the difference of two shares of the same items: `gained` are right in the second only,
    `lost` in the first only. It holds the differences that a score test does not reject: 0 where McNemar's does not."""

    def distance(of: float) -> float:
        """Standard errors between what was seen and a true difference."""
        b = (2 * items - gained + lost) * of - gained - lost
        lost_share = (math.sqrt(b * b + 8 * items * lost * of * (1 - of)) - b) / (4 * items)
        variance = items * (2 * lost_share + of * (1 - of))
        apart = gained - lost - items * of
        return apart / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, apart) if apart else 0.0

    seen = (gained - lost) / items
    return (
        _border(-1.0, seen, lambda of: distance(of) > z),
        _border(1.0, seen, lambda of: distance(of) < -z),
    )


def of_average(parts: Sequence[Change]) -> Change:
    """The average of independent changes; its intervals are made from those of each (MOVER, Zou 2008)."""
    values = [part.value for part in parts]
    centre = fmean(values)

    def within(z: float) -> Interval:
        ends = [part.within(z) for part in parts]
        below = math.sqrt(math.fsum((value - low) ** 2 for value, (low, _) in zip(values, ends, strict=True)))
        above = math.sqrt(math.fsum((high - value) ** 2 for value, (_, high) in zip(values, ends, strict=True)))
        return max(-1.0, centre - below / len(parts)), min(1.0, centre + above / len(parts))

    return Change(centre, within)


def _symmetric(value: float, error: float) -> Change:
    """A change whose intervals reach equally far to both sides."""
    return Change(value, lambda z: (max(-1.0, value - z * error), min(1.0, value + z * error)))


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
