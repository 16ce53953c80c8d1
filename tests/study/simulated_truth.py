"""Studies of which the truth is known: item by item, with seeds, sub-datasets and their interactions random.

python tests/study/simulated_truth.py     prints the table of docs/statistics.md (minutes)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

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
            found["bootstrap"].append(not interval.low <= 0 <= interval.high)  # type: ignore[operator]
        found["items"].append(item_test([task[0] for task in study]) < 0.05)
    return {name: float(np.mean(hits)) for name, hits in found.items() if hits}


def main() -> None:
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
