"""Headroom: what reading each sub-dataset at its own best moment of a run would have scored over the common moment.

The *own moment* of a sub-dataset is the peak of its smoothed validation curve; the *common moment* is the peak of the
smoothed macro-average. Both are read by search score, over the same ticks (tick 0, the base model, included), and
valued in the search score and in the test metric.

Peaks that are read and valued on the same items look too good. So the estimate is cross-fitted: half of each
sub-dataset's validation items choose the moments, the other half values them, and the other way round, over `HALVINGS`
random halvings. Its expectation is the gain of the moments that half of the items choose: less than the gain of the
true moments. The *plug-in*, in which all items choose and value, is biased upwards. Neither bounds what a search gains,
because an exclusion changes what the other sub-datasets learn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, variance
from typing import TypeAlias

from msft.core.curves import average, peak
from msft.core.vocabulary import Brief, Outcome, Probe, Task

WINDOW = 3
"""Ticks in the centred mean that smooths a curve before its peak is read."""
HALVINGS = 20
"""Random halvings of the validation items."""
FEWEST = 4
"""Validation items of each sub-dataset below which nothing is estimated: the halves would be single items."""
SURE = 2.0
"""Standard errors that a gain must have to be called shown."""
SMALL = 0.005
"""A gain below half a point is called small."""
REALISED = 1.0
"""Share of the headroom that a second run which is taught from the peaks is expected to realise in search score."""
RECORD = (Probe.ITEMS, Probe.METRICS)
"""What a roll-out has to record for its headroom."""

Items: TypeAlias = Sequence[int]
Curve: TypeAlias = Sequence[Fraction | float]


def recorded(brief: Brief) -> tuple[Probe, ...]:
    """The probes with which a method records what headroom needs: none unless the base model's items are recorded,
    which is so in runs with averaged weights."""
    return () if brief.base.items is None else RECORD


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure of one sub-dataset: `values[tick][item]`, whose mean is the score; its exponential, with `logs`."""

    values: Sequence[Sequence[float]]
    logs: bool

    def curve(self, items: Items | None = None) -> list[float]:
        """The score at each tick over these items, or over all."""
        return [float(score) for score in self.exact(items)]

    def exact(self, items: Items | None = None) -> list[Fraction | float]:
        """The same, as fractions where the score is a mean: equal shares of right answers are then equal."""
        rows = self.values if items is None else [[row[i] for i in items] for row in self.values]
        if self.logs:
            return [math.exp(fmean(row)) for row in rows]
        return [Fraction(math.fsum(row)) / len(row) for row in rows]

    def changes(self, tick: int, since: int) -> list[float]:
        """The part of each item in the change of the score since another tick: the mean of the parts is the change."""
        now, then = (self._parts(self.values[t]) for t in (tick, since))
        return [a - b for a, b in zip(now, then, strict=True)]

    def _parts(self, row: Sequence[float]) -> list[float]:
        if not self.logs:
            return list(row)
        # To first order, an item moves the exponential of the mean by its own distance from the mean.
        centre = fmean(row)
        return [math.exp(centre) * (1 + value - centre) for value in row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The ticks of one roll-out of the whole mixture, item by item, from the base model on."""

    epochs: Sequence[float]
    scores: Mapping[Task, Measured]
    """By search score."""
    metrics: Mapping[Task, Measured]
    """By test metric, on the validation items."""

    def items(self, task: Task) -> int:
        return len(self.scores[task].values[0])


def evidence(points: Iterable[tuple[float, Outcome]], tasks: Sequence[Task]) -> Evidence | None:
    """The evidence of points (epoch, outcome), up to the first that does not record every item of every sub-dataset.

    None if that leaves fewer than `WINDOW` ticks, if a sub-dataset has fewer than `FEWEST` items, or if a score is not
    finite.
    """
    whole: list[tuple[float, Outcome]] = []
    for epoch, outcome in points:
        if not all(set(tasks) <= (kept or {}).keys() for kept in (outcome.items, outcome.metrics)):
            break
        whole.append((epoch, outcome))
    if len(whole) < WINDOW:
        return None
    found = measured([outcome for _, outcome in whole], tasks, [epoch for epoch, _ in whole])
    if min(found.items(task) for task in tasks) < FEWEST:
        return None
    finite = all(
        math.isfinite(x) for m in (found.scores, found.metrics) for t in tasks for row in m[t].values for x in row
    )
    return found if finite else None


def measured(outcomes: Sequence[Outcome], tasks: Sequence[Task], epochs: Sequence[float] = ()) -> Evidence:
    """The items of outcomes that all record those of every sub-dataset."""

    def table(items: Sequence[Sequence[float]], scores: Sequence[float]) -> Measured:
        # Items are log-probabilities where not their mean but its exponential is the score.
        plain = all(math.isclose(fmean(row), score, abs_tol=1e-6) for row, score in zip(items, scores, strict=True))
        return Measured(items, logs=not plain)

    return Evidence(
        epochs=epochs,
        scores={t: table([(o.items or {})[t] for o in outcomes], [o.scores[t] for o in outcomes]) for t in tasks},
        metrics={t: table([(o.metrics or {})[t] for o in outcomes], [o.reports[t] for o in outcomes]) for t in tasks},
    )


@dataclass(frozen=True, slots=True)
class Moments:
    """Ticks at which the sub-datasets are read."""

    own: Mapping[Task, int]
    common: int


def moments(curves: Mapping[Task, Curve]) -> Moments:
    """The own and common moments that these curves show; of equal ticks the earliest."""
    tasks = list(curves)
    ticks = range(len(curves[tasks[0]]))
    macro = [average({task: curves[task][tick] for task in tasks}, tasks) for tick in ticks]
    return Moments({task: peak(curve, WINDOW).tick for task, curve in curves.items()}, peak(macro, WINDOW).tick)


def halves(items: int, task: Task, split: int) -> tuple[list[int], list[int]]:
    """The numbers of a sub-dataset's validation items in two halves; of an odd number, the first is the smaller."""
    first = sorted(random.Random(f"headroom {split} {task}").sample(range(items), items // 2))
    return first, sorted(set(range(items)) - set(first))


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """Gains of the own moments over the common moment, macro-averages; in the unit of the scores (1 is 100 points)."""

    score: float
    """Cross-fitted, in the search score."""
    metric: float
    """Cross-fitted, in the test metric."""
    error: float
    """Standard error, over as many items, of the difference between the own moments and the common moment in the search
    score: a gain well below it cannot be shown."""
    metric_error: float
    """The same, of the difference in the test metric."""

    def pays(self, realised: float = REALISED) -> bool:
        """Whether what a second run would realise can be shown, and the test metric does not speak against it.

        An error of 0 means that no item differs between the own moments and the common one: read from all items, they
        are the same, and there is nothing to gain, whatever the halves say.
        """
        return self.error > 0 and realised * self.score > SURE * self.error and self.metric >= -self.metric_error


def headroom(evidence: Evidence) -> Headroom:
    """The headroom by all items; see the module's text."""
    gains: list[tuple[float, float]] = []
    for split in range(HALVINGS):
        parts = {task: halves(evidence.items(task), task, split) for task in evidence.scores}
        for reads, values in ((0, 1), (1, 0)):
            read = moments({task: m.exact(parts[task][reads]) for task, m in evidence.scores.items()})
            gains.append((
                gain(evidence.scores, read, {task: part[values] for task, part in parts.items()}),
                gain(evidence.metrics, read, {task: part[values] for task, part in parts.items()}),
            ))  # fmt: skip
    return with_errors(evidence, fmean(score for score, _ in gains), fmean(metric for _, metric in gains))


def with_errors(evidence: Evidence, score: float, metric: float) -> Headroom:
    """The headroom of which these cross-fitted gains are known, with its errors."""
    best = moments({task: m.exact() for task, m in evidence.scores.items()})
    error, metric_error = (
        standard_error({t: m.changes(best.own[t], best.common) for t, m in measured.items()})
        for measured in (evidence.scores, evidence.metrics)
    )
    return Headroom(score=score, metric=metric, error=error, metric_error=metric_error)


def standard_error(changes: Mapping[Task, Sequence[float]]) -> float:
    """Standard error of the macro-average of the mean changes of the sub-datasets, over the items of each."""
    return math.sqrt(math.fsum(variance(each) / len(each) for each in changes.values())) / len(changes)


def gain(measured: Mapping[Task, Measured], read: Moments, items: Mapping[Task, Items] | None = None) -> float:
    """The macro-average at the own moments minus that at the common moment, over these items or all."""
    curves = {task: m.curve(None if items is None else items[task]) for task, m in measured.items()}
    return fmean(curve[read.own[task]] - curve[read.common] for task, curve in curves.items())


def unreached(evidence: Evidence, read: Moments) -> tuple[Task, ...]:
    """The sub-datasets whose own moment has fewer ticks after it than settle the smoothed curve: a tick that follows
    may still be better."""
    return tuple(task for task, tick in read.own.items() if tick >= len(evidence.epochs) - 1 - WINDOW // 2)
