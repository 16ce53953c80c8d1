"""Score curves: smoothing, peaks, and which points may still turn out to be one (design 1.1).

A curve is the scores of one sub-dataset at the ticks of one roll-out, tick 0 (its start) included. All comparisons
are exact (rational arithmetic): a constant curve stays constant under smoothing, and ties are ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from msft.core.vocabulary import Task


def number(score: float) -> Fraction | float:
    """The score as an exact number; a score that is not finite counts as worse than any other."""
    return Fraction(score) if math.isfinite(score) else -math.inf


def smoothed(curve: Sequence[float], window: int) -> Sequence[Fraction | float]:
    """Centred mean over `window` ticks (odd); at the ends over those that there are."""
    if window == 1:
        return [score if math.isfinite(score) else -math.inf for score in curve]
    half = window // 2
    values = [number(score) for score in curve]
    means: list[Fraction | float] = []
    for i in range(len(values)):
        around = values[max(0, i - half) : i + half + 1]
        means.append(sum(around, start=Fraction(0)) / len(around))
    return means


@dataclass(frozen=True, slots=True)
class Peak:
    """Where a curve is best, and whether it stands lower at its end."""

    tick: int
    """Index of the earliest tick with the best smoothed score."""
    before_end: bool
    falls: bool
    """The smoothed score at the end is below the best."""


def peak(curve: Sequence[float], window: int = 1) -> Peak:
    """The peak of one curve of at least one tick."""
    values = smoothed(curve, window)
    best = max(values)
    tick = values.index(best)
    return Peak(tick, before_end=tick < len(values) - 1, falls=values[-1] < best)


def may_be_peaks(curves: Mapping[Task, Sequence[float]], window: int = 1) -> set[int]:
    """The ticks that can still turn out to be a peak of one of these unfinished curves of equal length.

    The smoothed score of a tick is final once half a window lies behind it. Of the final ones only the best of each
    curve can win; the others of the last half-window are all still open: at most N + window // 2 ticks.
    """
    length = len(next(iter(curves.values()), ()))
    final = max(0, length - window // 2)
    candidates = set(range(final, length))
    if final:
        candidates |= {values.index(max(values)) for c in curves.values() for values in [smoothed(c, window)[:final]]}
    return candidates


def average(
    scores: Mapping[Task, float], tasks: Sequence[Task], weights: Sequence[int] | None = None
) -> Fraction | float:
    """Macro-average over the sub-datasets; with weights (validation items) the micro-average."""
    shares = weights if weights is not None else [1] * len(tasks)
    total = sum((number(scores[t]) * w for t, w in zip(tasks, shares, strict=True)), start=Fraction(0))
    return total / sum(shares)
