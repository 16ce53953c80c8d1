"""Is the headroom honest? Bias and coverage in simulation, where the truth is known.

    python benchmarks/headroom.py OUT.json [--replicates 2000] [--seconds 3600]

Ten sub-datasets have true accuracy curves over 13 ticks. Each validation item is right at a tick if a latent number of
its own, correlated over ticks, lies below a threshold, so that its expectation is the true curve. Every cell repeats
the estimate on fresh items. Reported per cell, in points of the macro-average:

- *estimand*: the expected true gain of the moments that half of the items choose;
- *bias*: mean estimate minus estimand; *coverage*: share of the intervals that hold the estimand;
- *true maximum*: the gain of the true peaks over the true common peak, and the biases of estimate and plug-in against
  it.

Finished cells are in OUT.json, and are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from msft.core.headroom import Evidence, Measured, moments
from msft.report.gains import measure

TASKS, TICKS = 10, 13
SHAPES = ("none", "one", "apart", "together", "rising")
ITEMS = (30, 100, 300, 1000)
CORRELATIONS = (0.5, 0.9)
Array = NDArray[np.float64]


def truth(shape: str) -> Array:
    """[tasks, ticks] true accuracies: rise to a peak, then a fall of 1.5 points a tick; without a peak, a plateau."""
    peaks = {
        "none": [None] * TASKS,
        "one": [2, *[None] * (TASKS - 1)],
        "apart": [2 + round(8 * i / (TASKS - 1)) for i in range(TASKS)],
        "together": [6] * TASKS,
        "rising": [TICKS - 1] * TASKS,
    }[shape]
    curves = []
    for i, peak in enumerate(peaks):
        top, base = 0.4 + 0.04 * i, 0.2
        reach = peak or 6
        rise = [base + (top - base) * math.sin(min(1, t / reach) * math.pi / 2) for t in range(TICKS)]
        curves.append([y - (0.015 * max(0, t - peak) if peak else 0) for t, y in enumerate(rise)])
    return np.array(curves)


def drawn(true: Array, items: int, correlation: float, dice: np.random.Generator) -> Evidence:
    """Right and wrong answers of fresh items."""
    limits = np.array([[NormalDist().inv_cdf(y) for y in row] for row in true])
    scores = {}
    for i in range(TASKS):
        latent = np.empty((TICKS, items))
        latent[0] = dice.standard_normal(items)
        for t in range(1, TICKS):
            fresh = dice.standard_normal(items)
            latent[t] = correlation * latent[t - 1] + math.sqrt(1 - correlation**2) * fresh
        right = (latent < limits[i][:, None]).astype(float)
        scores[f"t{i}"] = Measured(right.tolist(), logs=False)
    return Evidence(epochs=[t / 2 for t in range(TICKS)], scores=scores, metrics=scores)


def true_gain(true: Array, own: Sequence[int], common: int) -> float:
    return float(np.mean([true[i, tick] - true[i, common] for i, tick in enumerate(own)]))


def cell(shape: str, items: int, correlation: float, replicates: int) -> dict[str, float]:
    """One cell; all numbers in points."""
    true, dice = truth(shape), np.random.default_rng([SHAPES.index(shape), items, round(100 * correlation)])
    estimates, lows, highs, plugged, chosen = [], [], [], [], []
    for _ in range(replicates):
        found = drawn(true, items, correlation, dice)
        score = measure(found).score
        estimates.append(score.estimate)
        lows.append(score.low)
        highs.append(score.high)
        plugged.append(score.plug_in)
        for half in (range(items // 2), range(items // 2, items)):
            read = moments({task: m.exact(half) for task, m in found.scores.items()})
            chosen.append(true_gain(true, list(read.own.values()), read.common))
    estimand = float(np.mean(chosen))
    most = true_gain(true, list(true.argmax(axis=1)), int(true.mean(axis=0).argmax()))
    held = np.mean([(low <= estimand <= high) for low, high in zip(lows, highs, strict=True)])
    return {
        "estimand": 100 * estimand,
        "mean": 100 * float(np.mean(estimates)),
        "bias": 100 * (float(np.mean(estimates)) - estimand),
        "sd": 100 * float(np.std(estimates, ddof=1)),
        "coverage": 100 * float(held),
        "true_maximum": 100 * most,
        "bias_against_maximum": 100 * (float(np.mean(estimates)) - most),
        "plug_in_against_maximum": 100 * (float(np.mean(plugged)) - most),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    done = json.loads(given.out.read_text()) if given.out.exists() else {}
    began = time.monotonic()
    for items in ITEMS:
        for shape in SHAPES:
            for correlation in CORRELATIONS:
                name = f"{shape}, {items} items, correlation {correlation}"
                if name in done or time.monotonic() - began > given.seconds:
                    continue
                done[name] = cell(shape, items, correlation, given.replicates)
                given.out.write_text(json.dumps(done, indent=1) + "\n")
                print(name, {key: round(value, 2) for key, value in done[name].items()}, flush=True)


if __name__ == "__main__":
    main()
