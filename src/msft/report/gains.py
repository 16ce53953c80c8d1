"""The headroom of a run with its interval, for reports; `msft.core.headroom` defines it.

The interval is the estimate plus and minus `SPREAD` bootstrap standard errors. A replicate draws items, the same draw
for all halvings, so that no item stands in both halves, and repeats the choice of the moments. It holds the variation
of the validation items only, not that of another training run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msft.core.headroom import (
    HALVINGS,
    SMALL,
    WINDOW,
    Evidence,
    Measured,
    evidence,
    halves,
    moments,
    unreached,
    with_errors,
)
from msft.core.headroom import gain as gain_on_all
from msft.core.vocabulary import ROOT, Task
from msft.report.story import Story
from msft.report.words import difference, epochs, listed, span

Array = NDArray[np.float64]

REPLICATES = 100
SPREAD = 1.96
SEEN = (
    "On twelve small jobs, a second run that was taught from these peaks gained 1.3 points of search score and 0.6 "
    "points of accuracy for each point of this in search score; a search gained half a point of search score."
)
"""See docs/results/predicted_gains.md."""


@dataclass(frozen=True, slots=True)
class Gain:
    """In the unit of the scores, where 1 is 100 points."""

    estimate: float
    """Cross-fitted."""
    low: float
    high: float
    plug_in: float
    """Chosen and valued on the same items: biased upwards."""

    def as_json(self) -> dict[str, float]:
        return {"estimate": self.estimate, "low": self.low, "high": self.high, "plug_in": self.plug_in}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """Macro-averages of the gains of the own moments over the common moment of one run."""

    score: Gain
    metric: Gain
    own: Mapping[Task, float]
    """Epoch of the peak of each sub-dataset, read from all items."""
    common: float
    """Epoch of the peak of the macro-average."""
    unreached: tuple[Task, ...]
    """Sub-datasets whose peak lies at the end of the run, so that it may still come."""
    pays: bool
    """Whether the method `auto` has a second run for it, at its defaults."""

    def as_json(self) -> dict[str, Any]:
        return {
            "score": self.score.as_json(),
            "metric": self.metric.as_json(),
            "own": dict(self.own),
            "common": self.common,
            "unreached": list(self.unreached),
        }

    @property
    def worth(self) -> bool | None:
        """Whether a second run is worth a try: yes (True), neither measure can gain much and every peak was reached
        (False), or it is open (None)."""
        if self.pays:
            return True
        if not self.unreached and max(self.score.high, self.metric.high) < SMALL:
            return False
        return None


def gains_of(story: Story) -> Gains | None:
    """The headroom of a run's first roll-out; None unless it trained the whole mixture with averaged weights and
    recorded each item, and for a single sub-dataset, whose own moment is the common one (design 3.18)."""
    if len(story.tasks) == 1:
        return None
    at = [(0.0, story.brief.base)]
    for number, (segment, outcome) in enumerate(story.segments, start=1):
        if segment.rollout != 1 or segment.mixture.tasks != story.tasks or outcome.snapshot in (ROOT, segment.parent):
            break
        at.append((story.trail.points[number].epoch, outcome))
    found = evidence(at, story.tasks)
    return None if found is None else measure(found)


def measure(found: Evidence, replicates: int = REPLICATES) -> Gains:
    """The headroom with its intervals."""
    tasks = list(found.scores)
    dice = np.random.default_rng(20)
    sides = {task: _means(found, task, replicates, dice) for task in tasks}
    gains = np.zeros((2, 1 + replicates))
    for reads, values in ((0, 1), (1, 0)):
        read = {task: sides[task][0][reads] for task in tasks}
        own = {task: _peaks(curve) for task, curve in read.items()}
        common = _peaks(np.mean(list(read.values()), axis=0))
        for which in (0, 1):
            valued = [(sides[task][which][values], own[task]) for task in tasks]
            change = [_at(curve, tick) - _at(curve, common) for curve, tick in valued]
            gains[which] += np.mean(change, axis=(0, 2)) / 2
    best = moments({task: m.exact() for task, m in found.scores.items()})
    plug_in = [gain_on_all(measured, best) for measured in (found.scores, found.metrics)]
    spread = SPREAD * gains[:, 1:].std(axis=1, ddof=1)
    made = [
        Gain(float(g[0]), float(g[0] - s), float(g[0] + s), float(p))
        for g, s, p in zip(gains, spread, plug_in, strict=True)
    ]
    return Gains(
        score=made[0],
        metric=made[1],
        own={task: found.epochs[tick] for task, tick in best.own.items()},
        common=found.epochs[best.common],
        unreached=unreached(found, best),
        pays=with_errors(found, made[0].estimate, made[1].estimate).pays(),
    )


def _means(found: Evidence, task: Task, replicates: int, dice: np.random.Generator) -> list[list[Array]]:
    """For score and metric, for each half: [1 + replicates, splits, ticks] the curve over the items of the half.

    The first replicate is the items themselves.
    """
    items = found.items(task)
    first = np.zeros((HALVINGS, items))
    for split in range(HALVINGS):
        first[split, halves(items, task, split)[0]] = 1
    draws = dice.multinomial(items, np.full(items, 1 / items), size=replicates)
    counts = np.concatenate([np.ones((1, items)), draws])
    score, metric = found.scores[task], found.metrics[task]
    made = _curves(counts, first, score)
    return [made, made if metric is score else _curves(counts, first, metric)]


def _curves(counts: Array, first: Array, measured: Measured) -> list[Array]:
    """The curves over the first half and over the other items. `counts`: [replicates, items]; `first`: [splits, items],
    1 for the items of the first half."""
    values = np.array(measured.values).T
    one = (counts[:, None] * first).reshape(-1, len(values)) @ values
    sums = one.reshape(len(counts), len(first), -1)
    sizes = (counts @ first.T)[:, :, None]
    rest, others = (counts @ values)[:, None] - sums, counts.sum(axis=1)[:, None, None] - sizes
    means = [sums / np.maximum(sizes, 1), rest / np.maximum(others, 1)]
    return [np.exp(mean) for mean in means] if measured.logs else means


def _peaks(curves: Array) -> NDArray[np.int64]:
    """[..., ticks] curves to [...] the earliest best tick of each, smoothed as `msft.core.curves.smoothed` does."""
    half, ticks = WINDOW // 2, curves.shape[-1]
    sums = np.cumsum(np.concatenate([np.zeros((*curves.shape[:-1], 1)), curves], axis=-1), axis=-1)
    low = np.maximum(np.arange(ticks) - half, 0)
    high = np.minimum(np.arange(ticks) + half + 1, ticks)
    smooth = (sums[..., high] - sums[..., low]) / (high - low)
    # Equal means differ by rounding; the earliest of them counts.
    peaks: NDArray[np.int64] = np.argmax(np.round(smooth, 10), axis=-1)
    return peaks


def _at(curves: Array, ticks: NDArray[np.int64]) -> Array:
    taken: Array = np.take_along_axis(curves, ticks[..., None], axis=-1)[..., 0]
    return taken


def in_points(gain: float, low: float | None, high: float | None) -> str:
    """A gain with its interval, in words."""
    return f"{difference(gain)} points ({span(low, high)})"


def sentences(gains: Gains, *, decided: bool = False) -> list[str]:
    """The headroom for people: what it is, whether a second run is worth a try (unless the method has `decided` that
    itself), and what limits it."""
    score, metric = (in_points(gain.estimate, gain.low, gain.high) for gain in (gains.score, gains.metric))
    said = [
        f"If each sub-dataset were read at its own best epoch instead of the common epoch {epochs(gains.common)}, the "
        f"average would change by {score} in search score and {metric} in the test metric, on all validation "
        f"items: each half is valued at the epochs that the other half chose. {SEEN}"
    ]
    if not decided:
        said.append(WORTH[gains.worth])
    if gains.unreached:
        said.append(
            f"Their best epoch lies at the end of the run, so it may still come: {listed(gains.unreached)}. A longer "
            "run would tell more."
        )
    said.append("The intervals hold the variation of the validation items, not that of another seed.")
    return said


WORTH = {
    True: (
        "A second run is worth a try: method: auto would have one here, which teaches each sub-dataset from its own "
        "peak, at about twice the compute."
    ),
    False: "A second run is not worth its cost here.",
    None: (
        "This does not decide whether a second run would pay: method: auto would have none here, method: self_distil "
        "has one in any case."
    ),
}
