"""Studies of which the truth is known: item by item, with seeds, sub-datasets and their interactions random.

python tests/study/simulated_truth.py     prints the table of docs/statistics.md (minutes)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np
from scipy import stats

from msft.study.statistics import Array, Bootstrap, item_test, sign_flips, t_test

SEED_SD, INTERACTION_SD = 0.01, 0.02
"""Standard deviations, as shares: of a run's accuracy over training seeds, on all sub-datasets and on each."""


def studies(
    count: int,
    *,
    seeds: int = 6,
    tasks: int = 12,
    items: int = 150,
    effect: float = 0.0,
    seed_sd: float = SEED_SD,
    interaction_sd: float = INTERACTION_SD,
    effect_sd: float = 0.0,
    random_seed: int = 1,
) -> Iterator[list[Array]]:
    """Paired item differences of two methods, `count` times: one (seeds, items) table per sub-dataset.

    Both methods answer the same items, which differ in difficulty. `effect`: by how much the first is better on
    average; `effect_sd`: by how much that differs between sub-datasets.
    """
    random = np.random.default_rng(random_seed)
    for _ in range(count):
        difficulty = random.beta(1.2, 1.2, size=(1, 1, tasks, items)).astype(np.float32)
        shift = random.normal(0, seed_sd, (2, seeds, 1)) + random.normal(0, interaction_sd, (2, seeds, tasks))
        shift[0] += effect + random.normal(0, effect_sd, (1, tasks))
        right = random.random((2, seeds, tasks, items), dtype=np.float32) < difficulty + shift[..., None]
        difference = right[0].astype(float) - right[1]
        yield [difference[:, task] for task in range(tasks)]


def rejections(count: int, *, replicates: int = 400, bootstrap: bool = True, **truth: float) -> dict[str, float]:
    """Share of studies in which each test rejects at 5 % that there is no difference."""
    seeds, tasks, items = int(truth.get("seeds", 6)), int(truth.get("tasks", 12)), int(truth.get("items", 150))
    draws = Bootstrap(seeds, [items] * tasks, replicates) if bootstrap else None
    found: dict[str, list[bool]] = {"t": [], "flips": [], "bootstrap": [], "items": []}
    for study in studies(count, **truth):  # type: ignore[arg-type]
        macro = np.mean([task.mean(1) for task in study], axis=0)
        found["t"].append((t_test(macro) or 0.0) < 0.05)
        if (flipped := sign_flips(macro)) is not None:
            found["flips"].append(flipped < 0.05)
        if draws is not None:
            interval = draws.interval(study)
            assert interval is not None and interval.low is not None and interval.high is not None
            found["bootstrap"].append(not interval.low <= 0 <= interval.high)
        # Items that both methods answer alike, right or wrong, do not matter: counted as wrong here.
        one, two = ([(sign * task[0] > 0).astype(float) for task in study] for sign in (1, -1))
        p = item_test(one, two)
        assert p is not None
        found["items"].append(p < 0.05)
    return {name: float(np.mean(hits)) for name, hits in found.items() if hits}


def alternatives(count: int, *, replicates: int = 400, **truth: float) -> dict[str, float]:
    """The same of a bootstrap's plain quantiles, with and without items, and of variance components without a test."""
    seeds, tasks, items = int(truth.get("seeds", 6)), int(truth.get("tasks", 12)), int(truth.get("items", 150))
    random = np.random.default_rng(20)
    by_seed, by_task, *by_item = (
        random.multinomial(n, np.full(n, 1 / n), size=replicates) / n for n in (seeds, tasks, *[items] * tasks)
    )
    found: dict[str, list[bool]] = {"plain": [], "plain without items": [], "components": [], "components cut at 0": []}
    for study in studies(count, **truth):  # type: ignore[arg-type]
        table = np.stack([task.mean(1) for task in study], axis=1)
        whole = np.stack([np.einsum("bs,bs->b", by_seed, w @ d.T) for w, d in zip(by_item, study, strict=True)], axis=1)
        for name, drawn in (("plain", whole), ("plain without items", by_seed @ table)):
            low, high = np.quantile(np.einsum("bt,bt->b", drawn, by_task), [0.025, 0.975])
            found[name].append(not low <= 0 <= high)
        mean = table.mean()
        rows, columns = table.mean(1) - mean, table.mean(0) - mean
        rest = table - mean - rows[:, None] - columns
        a, b = tasks * float(rows @ rows) / (seeds - 1), seeds * float(columns @ columns) / (tasks - 1)
        r = float((rest**2).sum()) / ((seeds - 1) * (tasks - 1))
        for name, more in (("components", b - r), ("components cut at 0", max(0.0, b - r))):
            parts = a**2 / (seeds - 1)
            parts += 0 if more == 0 else b**2 / (tasks - 1) + r**2 / ((seeds - 1) * (tasks - 1))
            freedom = max(1.0, (a + more) ** 2 / parts)
            error = math.sqrt(max(a + more, 1e-12) / (seeds * tasks))
            found[name].append(2 * stats.t.sf(abs(mean) / error, freedom) < 0.05)
    return {name: float(np.mean(hits)) for name, hits in found.items()}


def main() -> None:
    if sys.argv[1:] == ["alternatives"]:
        settings: list[dict[str, float]] = [{}, {"effect_sd": 0.02}, {"seed_sd": 0}, {"seeds": 3}, {"seeds": 20}]
        for truth in settings:
            print("no difference", truth, alternatives(1000, **truth), rejections(1000, **truth), flush=True)
        return
    nulls: list[dict[str, float]] = [
        {},
        {"effect_sd": 0.02},
        {"seed_sd": 0.02, "interaction_sd": 0.01},
        {"items": 60},
        {"items": 300},
        {"seeds": 3},
        {"seeds": 10},
        {"seeds": 20},
        {"seeds": 20, "effect_sd": 0.02},
    ]
    for truth in nulls:
        print("no difference", truth, rejections(1000, **truth), flush=True)
    for seeds in (3, 6, 10, 20):
        for items in (60, 150, 300):
            truth = {"effect": 0.02, "seeds": seeds, "items": items}
            print("2 points", truth, rejections(500, **truth), flush=True)


if __name__ == "__main__":
    main()
