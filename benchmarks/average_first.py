"""Averages, decay and auto on three small jobs, paired by seed; each seed draws its own rows and splits.

    python examples/cheap_model.py
    python benchmarks/average_first.py OUT develop --job uneven --seeds 610:616 --rates 1.5e-3 3e-3 8e-3
    python benchmarks/average_first.py OUT confirm --job uneven --seeds 700:740 --decay 8e-3 --average 1.5e-3
    python benchmarks/average_first.py OUT table

`develop` runs SFT with a decaying rate and SFT with averages at each rate. `confirm` runs, at the rates that
development chose, `sft_decay` (its final model is its end), `sft_average` and `auto` with a search by exclusion; for
seeds in which auto searched also `auto_placebo` and `sft_average_equal_flops`, which are `sft_average` bit for bit
where it did not. `--seconds` stops between seeds; the same command goes on. `table` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from msft.config.reader import load
from msft.config.schema import Config
from msft.record.run_folder import RunFolder
from msft.report.cautions import learnable
from msft.report.cost import flops
from msft.report.story import read_story
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.overrides import with_method
from msft.study.runs import run_grid
from msft.study.statistics import holm, t_interval, t_test
from msft.study.variants import variants

EXAMPLES = Path(__file__).parent.parent / "examples"
JOBS = {"cheap": "cheap.yaml", "uneven": "uneven.yaml", "noisy": "noisy.yaml"}
VALIDATION_ITEMS = 100
PAIRS = (("auto", "sft_average"), ("sft_average", "sft_decay"), ("auto", "auto_placebo"),
         ("auto", "sft_average_equal_flops"))  # fmt: skip
NON_INFERIOR = 0.3
"""Points that auto may be below sft_average, at the lower end of the interval."""


def job(name: str, rate: float, mixing: str = "") -> Config:
    """The example with 100 validation items, method sft, evaluated every half epoch, without averages."""
    return with_method(example(name, rate, mixing), "sft")


def example(name: str, rate: float, mixing: str = "", average: float | None = None) -> Config:
    """The example with 100 validation items, a constant rate, and its own method."""
    given = load(EXAMPLES / JOBS[name], [f"data.mixing={mixing}"] if mixing else [])
    datasets = tuple(
        d.model_copy(update={"validation": d.validation.model_copy(update={"max_samples": VALIDATION_ITEMS})})
        for d in given.datasets
    )
    training = given.training.model_copy(update={"learning_rate": rate, "average": average, "schedule": "constant"})
    return given.model_copy(update={"datasets": datasets, "training": training})


def searching(made: Iterable[Variant]) -> tuple[Variant, ...]:
    """The variants, with `auto` as it was measured here: its second run is a search by exclusion."""
    return tuple(
        replace(v, config=with_method(v.config, "auto", second="exclude")) if v.config.method.name == "auto" else v
        for v in made
    )


def named(config: Config, name: str, label: str = "") -> Variant:
    (made,) = searching(variants(config, [name]))
    if name == "sft_decay":
        made = Variant(name=name, config=with_method(made.config, "sft", select="last"))
    return Variant(name=label or name, config=made.config)


def develop(name: str, rates: Sequence[float], mixing: str) -> list[Variant]:
    return [
        named(job(name, rate, mixing), method, f"{method}-{rate:g}{'-' + mixing if mixing else ''}")
        for rate in rates
        for method in ("sft_decay", "sft_average")
    ]


def confirm(name: str, decay: float, average: float) -> list[Variant]:
    return [named(job(name, decay), "sft_decay"), *(named(job(name, average), m) for m in ("sft_average", "auto"))]


def controls(name: str, average: float) -> tuple[Variant, ...]:
    return searching(variants(job(name, average), ["auto", "auto_placebo", "sft_average_equal_flops"]))


def run(out: Path, made: Sequence[Variant], seed: int) -> None:
    grid = Grid(kind="compare", variants=tuple(made), seeds=(seed,), redraw=True)
    failures = run_grid(StudyFolder(out), grid)
    assert not failures, failures


def searched(run: RunFolder) -> bool:
    return len({segment.rollout for segment, _ in read_story(run).segments}) > 1


def measured(run: RunFolder) -> dict[str, object]:
    """What the tables need of a finished run."""
    story = read_story(run)
    test = story.test["answer"]
    best: dict[str, float] = {}
    for point in story.trail.points.values():
        for task, report in point.reports.items():
            best[task] = max(report, best.get(task, 0.0))
    sizes = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    learned = [task for task in story.tasks if learnable(story.base.reports[task], best[task], sizes[task])]
    answer = story.answer
    assert answer is not None, "the run is finished"
    return {
        "reports": dict(test.reports),
        "validation": dict(answer.reports),
        "scores": dict(test.scores),
        "learned": learned,
        "flops": sum(flops(story).values()),
        "searched": searched(run),
        "said": story.explanations,
    }


def folders(out: Path) -> Iterator[tuple[str, str, int, RunFolder]]:
    for path in sorted(out.glob("*/*/*/runs/*/*")):
        run = RunFolder(path)
        if run.summary.exists():
            stage, name = path.parts[-6:-4]
            yield f"{stage} {name}", path.parent.name, int(path.name), run


def all_measured(out: Path) -> dict[str, dict[str, dict[int, dict]]]:
    """By stage, variant and seed, what was measured of each finished run; each run is read once."""
    kept = out / "measured.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    found: dict[str, dict[str, dict[int, dict]]] = {}
    for stage, variant, seed, run in folders(out):
        key = str(run.path.relative_to(out))
        if key not in known:
            known[key] = measured(run)
        found.setdefault(stage, {}).setdefault(variant, {})[seed] = known[key]
    kept.write_text(json.dumps(known) + "\n")
    return found


def table(out: Path) -> None:
    found = all_measured(out)
    confirmed: dict[str, float] = {}
    for stage, by_variant in found.items():
        print(f"\n## {stage}")
        runs = [run for seeds in by_variant.values() for run in seeds.values()]
        tasks = list(runs[0]["reports"])
        often = [task for task in tasks if sum(task in run["learned"] for run in runs) > len(runs) / 2]
        print(f"learnable: {', '.join(often)}")
        for variant, seeds in by_variant.items():
            values = [100 * fmean(run["reports"].values()) for run in seeds.values()]
            parts = [
                f"{variant:28s} n {len(values)} seeds {min(seeds)}-{max(seeds)}",
                f"test {fmean(values):.2f} (sd {stdev(values) if len(values) > 1 else 0:.2f})",
                f"learnable {100 * fmean(fmean(r['reports'][t] for t in often) for r in seeds.values()):.2f}",
                f"search score {100 * fmean(fmean(r['scores'].values()) for r in seeds.values()):.2f}",
                f"GFLOP {fmean(r['flops'] for r in seeds.values()) / 1e9:.0f}",
                f"searched {sum(r['searched'] for r in seeds.values())}",
            ]
            print("; ".join(parts))
        for one, two in PAIRS:
            if one in by_variant and two in by_variant:
                p = pair(by_variant[one], by_variant[two], f"{one} - {two}", often)
                if (one, two) == PAIRS[1] and p is not None:
                    confirmed[stage] = p
    if len(confirmed) > 1:
        print("\nHolm over jobs, sft_average - sft_decay:", {k: round(v, 4) for k, v in holm(confirmed).items()})


def pair(one: dict[int, dict], two: dict[int, dict], label: str, often: Sequence[str]) -> float | None:
    """Prints the paired differences; returns the p-value in the test metric."""
    seeds = sorted(one.keys() & two.keys())
    if len(seeds) < 2:
        return None
    measures = {
        "test": lambda run: fmean(run["reports"].values()),
        "learnable": lambda run: fmean(run["reports"][t] for t in often),
        "search score": lambda run: fmean(run["scores"].values()),
    }
    parts, p = [], None
    for name, of in measures.items():
        differences = [100 * (of(one[seed]) - of(two[seed])) for seed in seeds]
        interval = t_interval(differences)
        if name == "test":
            p = t_test(differences)
        low, high = interval.low or 0.0, interval.high or 0.0
        parts.append(f"{name} {interval.mean:+.2f} ({low:+.2f} to {high:+.2f})")
        if label.startswith("auto - sft_average") and name == "test":
            verdict = "non-inferior" if low > -NON_INFERIOR else "worse" if high < -NON_INFERIOR else "undecided"
            parts.append(f"{verdict} at {NON_INFERIOR}")
    print(f"{label}, n {len(seeds)}, seeds {seeds[0]}-{seeds[-1]}: {'; '.join(parts)}; p {p}")
    return p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("stage", choices=("develop", "confirm", "table"))
    parser.add_argument("--job", choices=tuple(JOBS), default="cheap")
    parser.add_argument("--seeds", default="610:616", help="first:end")
    parser.add_argument("--rates", type=float, nargs="*", default=[])
    parser.add_argument("--mixing", default="")
    parser.add_argument("--decay", type=float)
    parser.add_argument("--average", type=float)
    parser.add_argument("--seconds", type=float, default=36000)
    given = parser.parse_args()
    if given.stage == "table":
        return table(given.out)
    began = time.monotonic()
    for seed in range(*map(int, given.seeds.split(":"))):
        if time.monotonic() - began > given.seconds:
            print(f"stopped by the clock before seed {seed}")
            return None
        if given.stage == "develop":
            label = "-".join([f"{rate:g}" for rate in given.rates] + [given.mixing] * bool(given.mixing))
            folder = given.out / f"develop-{label}" / given.job / str(seed)
            run(folder, develop(given.job, given.rates, given.mixing), seed)
        else:
            folder = given.out / "confirm" / given.job / str(seed)
            run(folder, confirm(given.job, given.decay, given.average), seed)
            if searched(StudyFolder(folder).run("auto", seed)):
                run(given.out / "confirm" / given.job / f"{seed}-controls", controls(given.job, given.average), seed)
        print(given.stage, given.job, seed, f"{time.monotonic() - began:.0f} s", flush=True)
    return None


if __name__ == "__main__":
    main()
