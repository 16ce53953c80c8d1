"""How often the 95 % intervals of `msft.report.intervals` hold the truth: the table in docs/statistics.md.

    PYTHONPATH=src python benchmarks/interval_coverage.py        # 2 minutes on one core

Each kind is tried at 20, 80 and 400 items, over true scores from 3 to 97 %: the mean of the coverage over them, and the
least. Items are drawn from the population that the score is of, with fresh items in every draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from msft.report.intervals import Interval, of_answers, of_average, of_change, of_items, tango, wilson

SIZES = (20, 80, 400)
SETTINGS = 40
"""True scores."""
DRAWS = 1000
"""Samples of each, except where the coverage can be computed."""

Coverage = Iterator[float]


def holds(interval: Interval | None, true: float) -> bool:
    assert interval is not None
    return interval[0] - 1e-9 <= true <= interval[1] + 1e-9


def share(items: int, random: np.random.Generator) -> Coverage:
    """An accuracy: exactly, over all numbers of right answers."""
    inside = [wilson(right / items, items) for right in range(items + 1)]
    for p in np.linspace(0.03, 0.97, 500):
        odds = np.array([math.lgamma(items + 1) - math.lgamma(k + 1) - math.lgamma(items - k + 1)
                         + k * math.log(p) + (items - k) * math.log(1 - p) for k in range(items + 1)])  # fmt: skip
        yield float(sum(math.exp(o) for o, each in zip(odds, inside, strict=True) if holds(each, float(p))))


def soft(items: int, random: np.random.Generator) -> Coverage:
    """The mean of scores between 0 and 1, Beta-distributed with a + b = 3."""
    for p in np.linspace(0.03, 0.97, SETTINGS):
        drawn = random.beta(3 * p, 3 * (1 - p), (DRAWS, items))
        yield float(np.mean([holds(of_items(float(x.mean()), x.tolist()), float(p)) for x in drawn]))


def likelihood(items: int, random: np.random.Generator) -> Coverage:
    """exp(mean log-likelihood), the log-likelihoods Gamma-distributed with shape 2."""
    for p in np.linspace(0.03, 0.97, SETTINGS):
        drawn = -random.gamma(2.0, -math.log(p) / 2, (DRAWS, items))
        yield float(np.mean([holds(of_items(math.exp(x.mean()), x.tolist()), float(p)) for x in drawn]))


def pairs(random: np.random.Generator) -> tuple[float, float]:
    """Probabilities that only the second model is right, and only the first: items of one difficulty, one shift."""
    p = random.uniform(0.03, 0.97)
    base = random.beta(2.4 * p, 2.4 * (1 - p), 50_000)
    answer = np.clip(base + random.uniform(-0.3, 0.3), 0, 1)
    return float((answer * (1 - base)).mean()), float((base * (1 - answer)).mean())


def change(items: int, random: np.random.Generator) -> Coverage:
    """The difference of two accuracies on the same items."""
    for _ in range(5 * SETTINGS):
        gained, lost = pairs(random)
        drawn = random.multinomial(items, [gained, lost, 1 - gained - lost], DRAWS)
        seen, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
        inside = [holds(tango(int(g), int(n), items), gained - lost) for g, n in seen]
        yield float(np.average(inside, weights=times))


def likelihood_change(items: int, random: np.random.Generator) -> Coverage:
    """The difference of two exp(mean log-likelihood) on the same items, with a correlation of about 0.9."""
    for p in np.linspace(0.03, 0.97, SETTINGS):
        q = p * random.uniform(0.8, min(1.2, 0.98 / p))
        inside = []
        for _ in range(DRAWS):
            hard, own = random.gamma(2.0, 1.0, (2, items))
            was, now = hard * math.log(p) / 2, (0.7 * hard + 0.3 * own) * math.log(q) / 2
            found = of_change(was.tolist(), now.tolist(), math.exp(was.mean()), math.exp(now.mean()))
            inside.append(holds(found and found.interval, q - p))
        yield float(np.mean(inside))


def average(items: int, random: np.random.Generator) -> Coverage:
    """The average of four differences of accuracies."""
    for _ in range(SETTINGS):
        chances = [pairs(random) for _ in range(4)]
        true = sum(gained - lost for gained, lost in chances) / 4
        drawn = [random.multinomial(items, [g, n, 1 - g - n], DRAWS) for g, n in chances]
        inside = []
        for rows in zip(*drawn, strict=True):
            parts = [of_answers(int(g), int(n), items) for g, n, _ in rows]
            inside.append(holds(of_average(parts).interval, true))
        yield float(np.mean(inside))


KINDS: dict[str, Callable[[int, np.random.Generator], Coverage]] = {
    "accuracy": share,
    "mean of scores in [0, 1]": soft,
    "exp(−NLL)": likelihood,
    "change of an accuracy": change,
    "change of exp(−NLL)": likelihood_change,
    "average of four changes of accuracies": average,
}


def coverage(kind: str, items: int, seed: int = 0) -> tuple[float, float]:
    """Mean over true scores, and the least."""
    found = list(KINDS[kind](items, np.random.default_rng(seed)))
    return float(np.mean(found)), min(found)


def main() -> None:
    print("| interval | " + " | ".join(f"{items} items" for items in SIZES) + " |")
    print("|---" * (1 + len(SIZES)) + "|")
    for kind in KINDS:
        cells = [f"{100 * mean:.1f} ({100 * least:.1f})" for mean, least in (coverage(kind, n) for n in SIZES)]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
