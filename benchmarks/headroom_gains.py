"""Does the headroom that plain fine-tuning shows predict what a search gains? Twelve variants of the small jobs.

    python examples/cheap_model.py && python examples/cheap_model.py --noisy
    python benchmarks/headroom_gains.py OUT --seeds 780:786
    python benchmarks/headroom_gains.py OUT
    python benchmarks/headroom_gains.py OUT --second taught --seeds 940:946
    python benchmarks/headroom_gains.py OUT --second taught

The ten sub-datasets of examples/uneven.yaml, each drawn equally often, varied in three ways: the largest is 1, 4 or 16
times the smallest; three of them have no wrong answers or 40 %; there are 30 or 70 examples of each on average. In each
variant plain SFT and one search, mSFT with the example's settings, both on averaged weights, paired by seed; each seed
draws its own rows. x: the headroom of the SFT run by its validation items. y: what the search gained on the test split.
The second command fits y on x over variants, with and without a correction for the errors in x. With `--second taught`,
the same for `self_distil`, at the rate that teachers.py has for it, as for plain SFT.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import NamedTuple

import numpy as np
from average_first import EXAMPLES, example, folders, measured, run
from scipy.stats import t as student

from msft.config.schema import Config
from msft.core.headroom import HALVINGS, SURE, Evidence, Measured, evidence, halves, headroom
from msft.core.vocabulary import Outcome
from msft.record.run_folder import RunFolder
from msft.report.gains import gains_of
from msft.report.story import Point, Story, read_story
from msft.study.statistics import t_interval
from msft.study.variants import variants

UNEVEN, NOISE, NUMBERS = (1, 4, 16), (False, True), (30, 70)
NOISY = ("gcd", "simple_equations", "count_bits")
"""Those of which examples/cheap_model.py writes a file with wrong answers."""
MEASURES = ("scores", "reports")
NAMED = {"scores": "search score", "reports": "test metric"}
DRAWS = 4000
REALISED = 0.4
"""Share of the headroom that `auto` expected a search to realise, when searches were measured."""
LEAST = 0.3
"""Reliability of x below which a slope is not corrected: its correction would divide by noise."""


class Second(NamedTuple):
    """What is compared with plain SFT."""

    method: str
    rate: float
    stage: str
    """The folder of its runs."""


SECONDS = {"search": Second("msft", 1.5e-3, "e"), "taught": Second("self_distil", 3e-3, "t")}


class Made(NamedTuple):
    """How a variant is made."""

    uneven: int
    """Times the size of the smallest sub-dataset that the largest has."""
    noise: bool
    number: int
    """Examples of a sub-dataset, on average."""

    @property
    def name(self) -> str:
        return f"{self.number}x{self.uneven}{'n' if self.noise else ''}"


VARIANTS = tuple(Made(*each) for each in itertools.product(UNEVEN, NOISE, NUMBERS))


def sizes(made: Made, count: int) -> list[int]:
    """A falling geometric row of `count` sizes, of this mean."""
    row = [made.uneven ** (-i / (count - 1)) for i in range(count)]
    return [max(2, round(made.number * count * part / sum(row))) for part in row]


def config_of(made: Made, rate: float) -> Config:
    """The order of the sizes is that of examples/uneven.yaml: who is large there is large here."""
    base = example("uneven", rate, average=1.0)
    order = sorted(base.datasets, key=lambda dataset: -(dataset.max_samples or 0))
    size = {dataset.id: n for dataset, n in zip(order, sizes(made, len(order)), strict=True)}
    datasets = []
    for dataset in base.datasets:
        wrong = made.noise and dataset.id in NOISY
        path = str(EXAMPLES / "cheap" / "data" / f"{dataset.id}_noisy.jsonl") if wrong else dataset.path
        datasets.append(dataset.model_copy(update={"max_samples": size[dataset.id], "path": path}))
    return base.model_copy(update={"datasets": tuple(datasets)})


def read(story: Story, second: Second) -> dict[str, float | bool]:
    """What an SFT run predicts, in points, and whether auto would have a second run."""
    gains = gains_of(story)
    assert gains is not None, "the runs have averages and enough items"
    found = evidence(((point.epoch, outcome) for point, outcome in _trail(story)), story.tasks)
    assert found is not None
    room = headroom(half_of(found) if second.method == "msft" else found)
    then = REALISED * room.score > SURE * room.error and room.metric > 0
    worth = then if second.method == "msft" else room.pays()
    return {"scores": 100 * gains.score.estimate, "reports": 100 * gains.metric.estimate, "searches": worth}


def half_of(found: Evidence) -> Evidence:
    """The half of each sub-dataset's items by which `auto` decided, when searches were measured."""

    def of(task: str, measured: Measured) -> Measured:
        kept = halves(found.items(task), task, HALVINGS)[0]
        return Measured([[row[i] for i in kept] for row in measured.values], logs=measured.logs)

    scores, metrics = ({task: of(task, m) for task, m in each.items()} for each in (found.scores, found.metrics))
    return Evidence(epochs=found.epochs, scores=scores, metrics=metrics)


def _trail(story: Story) -> Iterator[tuple[Point, Outcome]]:
    yield story.trail.points[0], story.brief.base
    for number, (_, outcome) in enumerate(story.segments, start=1):
        yield story.trail.points[number], outcome


def rows_of(out: Path, second: Second) -> dict[str, dict[int, dict]]:
    """Variant to seed to what was predicted (`x`), gained (`y`, in points) and spent (`cost`, in that of SFT). Each run
    is read once."""
    kept = out / "gains.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    runs: dict[str, dict[int, dict[str, RunFolder]]] = {}
    for stage, method, seed, folder in folders(out):
        runs.setdefault(stage, {}).setdefault(seed, {})[method] = folder
    found: dict[str, dict[int, dict]] = {}
    for stage, seeds in runs.items():
        for seed, both in seeds.items():
            if both.keys() != {"sft", second.method} or stage.split()[0] != second.stage:
                continue
            key = f"{stage} {seed}"
            if key not in known:
                plain, search = measured(both["sft"]), measured(both[second.method])
                gained = {m: 100 * (fmean(search[m].values()) - fmean(plain[m].values())) for m in MEASURES}
                known[key] = {
                    "x": read(read_story(both["sft"]), second),
                    "y": gained,
                    "cost": search["flops"] / plain["flops"],
                    "validation": 100 * (fmean(search["validation"].values()) - fmean(plain["validation"].values())),
                }
            found.setdefault(stage.split()[-1], {})[seed] = known[key]
    kept.write_text(json.dumps(known, indent=1) + "\n")
    return found


class Fit(NamedTuple):
    slope: float
    intercept: float
    slope_interval: tuple[float, float]
    intercept_interval: tuple[float, float]


def fit(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Least squares over variants, with Student's 95 % intervals."""
    design = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.inv(design.T @ design)
    intercept, slope = inverse @ design.T @ np.asarray(y)
    left = np.asarray(y) - design @ [intercept, slope]
    errors = np.sqrt(np.diag(inverse) * (left @ left) / (len(x) - 2))
    wide = student.ppf(0.975, len(x) - 2) * errors
    return Fit(
        float(slope),
        float(intercept),
        (float(slope - wide[1]), float(slope + wide[1])),
        (float(intercept - wide[0]), float(intercept + wide[0])),
    )


def reliability(by_variant: Sequence[Sequence[float]]) -> float:
    """Share of the variance of the variants' means of x that is not noise of their seeds."""
    means = [fmean(values) for values in by_variant]
    noise = fmean(variance(values) / len(values) for values in by_variant)
    return max(0.0, 1 - noise / variance(means))


def instrumented(rows: Sequence[Sequence[tuple[float, float]]]) -> float:
    """The slope of y on x where half of the seeds give x and the others its instrument; y is the mean of all; both ways
    round. Errors of x that seeds do not share drop out of it."""
    y = np.array([fmean(y for _, y in seeds) for seeds in rows])
    halved = [np.array([fmean(x for x, _ in seeds[part::2]) for seeds in rows]) for part in (0, 1)]
    above = sum(float(np.cov(z, y)[0, 1]) for z in halved)
    return above / (2 * float(np.cov(halved[0], halved[1])[0, 1]))


def over_draws(rows: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """95 % of the corrected slopes when variants are drawn again."""
    dice = np.random.default_rng(20)
    found = [instrumented([rows[i] for i in dice.integers(len(rows), size=len(rows))]) for _ in range(DRAWS)]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def table(found: Mapping[str, Mapping[int, dict]]) -> None:
    heads = (
        "| variant | n | seeds | headroom, score | metric | auto would go on | gain, score | metric | FLOPs of SFT |"
    )
    print(f"{heads}\n|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for name, seeds in found.items():
        cells = [f"{fmean(r['x'][m] for r in seeds.values()):+.2f}" for m in MEASURES]
        cells.append(str(sum(r["x"]["searches"] for r in seeds.values())))
        for m in MEASURES:
            gained = t_interval([r["y"][m] for r in seeds.values()])
            cells.append(f"{gained.mean:+.2f} ({gained.low or 0:+.2f} to {gained.high or 0:+.2f})")
        cells.append(f"{fmean(r['cost'] for r in seeds.values()):.2f}")
        print(f"| {name} | {len(seeds)} | {min(seeds)}-{max(seeds)} | {' | '.join(cells)} |")
    for by, of in (("scores", "scores"), ("reports", "reports"), ("scores", "reports")):
        xs = [[r["x"][by] for r in seeds.values()] for seeds in found.values()]
        ys = [[r["y"][of] for r in seeds.values()] for seeds in found.values()]
        means = [fmean(x) for x in xs], [fmean(y) for y in ys]
        made, share = fit(*means), reliability(xs)
        slope, zero = made.slope_interval, made.intercept_interval
        print(f"\ngain in {NAMED[of]} over headroom in {NAMED[by]}, n {len(xs)} variants")
        print(f"slope {made.slope:+.2f} ({slope[0]:+.2f} to {slope[1]:+.2f})")
        print(f"intercept {made.intercept:+.2f} ({zero[0]:+.2f} to {zero[1]:+.2f})")
        print(f"correlation {float(np.corrcoef(*means)[0, 1]):+.2f}; reliability of x {share:.2f}")
        if share < LEAST:
            print("no corrected slope: x is mostly noise")
            continue
        pairs = [list(zip(x, y, strict=True)) for x, y in zip(xs, ys, strict=True)]
        low, high = over_draws(pairs)
        print(f"slope over the reliability {made.slope / share:+.2f}")
        print(f"instrumented slope {instrumented(pairs):+.2f} ({low:+.2f} to {high:+.2f})")
    for searches in (True, False):
        some = [r for seeds in found.values() for r in seeds.values() if r["x"]["searches"] == searches]
        if len(some) < 3:
            continue
        for m, kind in NAMED.items():
            gained = t_interval([r["y"][m] for r in some])
            where = "where auto would have a second run" if searches else "where it would not"
            said = f"{gained.mean:+.2f} ({gained.low:+.2f} to {gained.high:+.2f})"
            print(f"{where}, {kind}: {said}, n {len(some)} runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", help="first:beyond; without it, the tables of what is there")
    parser.add_argument("--seconds", type=float, default=7200.0, help="no seed is begun after them (default: 7200)")
    parser.add_argument("--second", choices=SECONDS, default="search", help="what is compared with plain SFT")
    given = parser.parse_args()
    second = SECONDS[given.second]
    if given.seeds is None:
        table(rows_of(given.out, second))
        return
    began = time.monotonic()
    for seed in range(*map(int, given.seeds.split(":"))):
        for made in VARIANTS:
            if time.monotonic() - began > given.seconds:
                print("the time is over: the same command goes on")
                return
            methods = variants(config_of(made, second.rate), ["sft", second.method])
            run(given.out / second.stage / made.name / str(seed), methods, seed)
            print(f"{made.name} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
