"""Score curves: smoothing, peaks, and which points may still become a peak (design 1.1).

A curve is the scores of one sub-dataset at the ticks of one roll-out, tick 0 (its start) included. All comparisons
are exact (rational arithmetic), so that smoothing keeps a constant curve constant and equal means compare as equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from msft.core.vocabulary import Task


def number(score: Fraction | float) -> Fraction | float:
    """The score as an exact number; NaN or infinite becomes -inf, which is worse than any other score."""
    return Fraction(score) if math.isfinite(score) else -math.inf


def smoothed(curve: Sequence[Fraction | float], window: int) -> Sequence[Fraction | float]:
    """Centred mean over `window` ticks (odd); near the ends of the curve, over the ticks that exist."""
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
    """The best tick of a curve, and whether the curve is lower at its end."""

    tick: int
    """Index of the earliest tick with the best smoothed score."""
    before_end: bool
    falls: bool
    """Whether the smoothed score at the end is below the best."""


def peak(curve: Sequence[Fraction | float], window: int = 1) -> Peak:
    """The peak of one curve of at least one tick."""
    values = smoothed(curve, window)
    best = max(values)
    tick = values.index(best)
    return Peak(tick, before_end=tick < len(values) - 1, falls=values[-1] < best)


def may_be_peaks(curves: Mapping[Task, Sequence[Fraction | float]], window: int = 1) -> set[int]:
    """The ticks that may still become the peak of one of these unfinished curves of equal length.

    The smoothed score of a tick is final once window // 2 ticks follow it. Of the final ticks, only the best of each
    curve can become its peak; of the others, each can. For N curves these are at most N + window // 2 ticks.
    """
    length = len(next(iter(curves.values()), ()))
    final = max(0, length - window // 2)
    candidates = set(range(final, length))
    if final:
        candidates |= {values.index(max(values)) for c in curves.values() for values in [smoothed(c, window)[:final]]}
    return candidates


def average(
    scores: Mapping[Task, Fraction | float], tasks: Sequence[Task], weights: Sequence[int] | None = None
) -> Fraction | float:
    """Macro-average over the sub-datasets; with weights (validation items) the micro-average."""
    shares = weights if weights is not None else [1] * len(tasks)
    total = sum((number(scores[t]) * w for t, w in zip(tasks, shares, strict=True)), start=Fraction(0))
    return total / sum(shares)
