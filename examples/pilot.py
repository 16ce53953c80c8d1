"""Is the effect there at all? SFT's curves at several learning rates, and whether sub-datasets peak apart.

    python examples/pilot.py JOB.yaml [--rates 3e-4,1e-3,3e-3] [--seeds 3] [--set key=value] --output FOLDER

Runs plain SFT at each rate with training seed 1, chooses the rate whose best evaluation has the best validation
macro-average, and runs that with `--seeds` fresh seeds (2, 3, ...). The same command goes on where it was stopped. The
gate: in every fresh seed, at least two sub-datasets peak two or more evaluations apart, the same one first; and the
test macro-average rises above the base model's. Writes FOLDER/pilot.json, pilot.md and pilot.svg.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from msft.config.reader import load
from msft.core.curves import peak
from msft.record.run_folder import RunFolder
from msft.report.seconds import seconds_of
from msft.report.story import read_story
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.overrides import with_method
from msft.study.runs import Progress, run_grid

APART = 2
"""Ticks between two peaks that count as apart."""
WINDOW = 3
"""Ticks in the mean under which a peak is read here: plain SFT's own answer uses none."""


@dataclass(frozen=True)
class Curves:
    """One run of SFT, tick by tick; `control` and `report` of each sub-dataset on the validation split."""

    epochs: list[float]
    control: dict[str, list[float]]
    report: dict[str, list[float]]
    test: Mapping[str, float]
    """Macro-averages of `base` and `answer`."""
    seconds: float

    @classmethod
    def of(cls, folder: RunFolder) -> Curves:
        story = read_story(folder)
        places = story.trunk
        return cls(
            epochs=[place.epoch for place in places],
            control={task: [place.scores[task] for place in places] for task in story.tasks},
            report={task: [place.reports[task] for place in places] for task in story.tasks},
            test={which: mean(outcome.reports.values()) for which, outcome in story.test.items()},
            seconds=seconds_of(story).total,
        )

    @property
    def peaks(self) -> dict[str, int]:
        """The tick at which each sub-dataset's smoothed search score is best, the earliest of equals."""
        return {task: peak(curve, WINDOW).tick for task, curve in self.control.items()}

    def macro(self, which: str) -> list[float]:
        return [mean(values) for values in zip(*getattr(self, which).values(), strict=True)]


def pairs_apart(seeds: Sequence[Mapping[str, int]]) -> list[tuple[str, str]]:
    """(earlier, later): sub-datasets whose peaks are apart in every seed, the same one first."""
    return [
        (a, b) for a, b in itertools.permutations(seeds[0], 2) if all(peaks[b] - peaks[a] >= APART for peaks in seeds)
    ]


def by_chance(seeds: Sequence[Mapping[str, int]], draws: int = 1000) -> float:
    """How many such pairs there are on average when each seed's peaks are dealt to the sub-datasets at random."""
    dice = random.Random(20)
    tasks = list(seeds[0])
    found = 0
    for _ in range(draws):
        dealt = [dict(zip(tasks, dice.sample(list(peaks.values()), len(tasks)), strict=True)) for peaks in seeds]
        found += len(pairs_apart(dealt))
    return found / draws


def run(
    arguments: argparse.Namespace, name: str, rates: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[Curves]]:
    """Rate to the curves of each seed."""

    def told(progress: Progress) -> None:
        failure = f": {progress.failure}" if progress.failure else ""
        print(
            f"{name} {progress.done}/{progress.total} {progress.variant} {progress.seconds:.0f} s{failure}", flush=True
        )

    variants = []
    for rate in rates:
        config = load(arguments.config, [*arguments.set, f"training.learning_rate={rate}"])
        variants.append(Variant(name=rate, config=with_method(config, "sft")))
    grid, folder = (
        Grid(kind="pilot", variants=tuple(variants), seeds=tuple(seeds)),
        StudyFolder(arguments.output / name),
    )
    if failures := run_grid(folder, grid, jobs=arguments.jobs, tell=told):
        raise SystemExit(f"these runs failed: {failures}")
    return {v.name: [Curves.of(folder.run(v, seed)) for seed in grid.seeds] for v in variants}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--rates", default="3e-4,1e-3,3e-3", type=lambda text: text.split(","))
    parser.add_argument("--seeds", default=3, type=int)
    parser.add_argument("--jobs", default=1, type=int)
    parser.add_argument("--set", default=[], action="append", metavar="key=value")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    sweep = {rate: found[0] for rate, found in run(arguments, "sweep", arguments.rates, [1]).items()}
    chosen = max(sweep, key=lambda rate: max(sweep[rate].macro("control")))
    confirmed = run(arguments, "seeds", [chosen], range(2, 2 + arguments.seeds))[chosen]
    result = judged(sweep, chosen, confirmed)
    (arguments.output / "pilot.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (arguments.output / "pilot.md").write_text(words(result), encoding="utf-8")
    draw(sweep, chosen, confirmed, arguments.output / "pilot.svg")
    print(words(result))


def judged(sweep: Mapping[str, Curves], chosen: str, confirmed: Sequence[Curves]) -> dict[str, Any]:
    peaks = [curves.peaks for curves in confirmed]
    pairs = pairs_apart(peaks)
    gains = [curves.test["answer"] - curves.test["base"] for curves in confirmed]
    return {
        "sweep": {
            rate: {
                "base": curves.macro("report")[0],
                "best": max(curves.macro("report")),
                "control": max(curves.macro("control")),
                "best_epoch": curves.epochs[peak(curves.macro("control")).tick],
                "test": dict(curves.test),
                "seconds": curves.seconds,
            }
            for rate, curves in sweep.items()
        },
        "chosen": chosen,
        "peak_epochs": {
            task: [curves.epochs[at[task]] for curves, at in zip(confirmed, peaks, strict=True)] for task in peaks[0]
        },
        "scores": {
            task: {
                "base": confirmed[0].report[task][0],
                "best": mean(max(curves.report[task]) for curves in confirmed),
                "control_best": mean(max(curves.control[task]) for curves in confirmed),
                "control_end": mean(curves.control[task][-1] for curves in confirmed),
            }
            for task in peaks[0]
        },
        "pairs_apart": [list(pair) for pair in pairs],
        "pairs_by_chance": by_chance(peaks),
        "test": [dict(curves.test) for curves in confirmed],
        "gate": {"peaks_apart": bool(pairs), "test_rises": all(gain > 0 for gain in gains)},
    }


def words(result: Mapping[str, Any]) -> str:
    """The result as Markdown: percentages of the report, epochs."""
    lines = [
        "| learning rate | validation, base | best evaluation | its search score | at epoch | test, base "
        "| test, final model |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {rate} | {100 * r['base']:.1f} | {100 * r['best']:.1f} | {100 * r['control']:.1f} | {r['best_epoch']:.2f} "
        f"| {100 * r['test']['base']:.1f} | {100 * r['test']['answer']:.1f} |"
        for rate, r in result["sweep"].items()
    ]
    lines += ["", f"Chosen: {result['chosen']}. With fresh seeds:", ""]
    lines += [
        "| sub-dataset | peak, epoch, in each seed | test metric: base | best | search score: best | end |",
        "|---|---|---|---|---|---|",
    ]
    for task, epochs in result["peak_epochs"].items():
        s = result["scores"][task]
        lines.append(
            f"| {task} | {', '.join(f'{e:.2f}' for e in epochs)} | {100 * s['base']:.1f} | {100 * s['best']:.1f} "
            f"| {100 * s['control_best']:.1f} | {100 * s['control_end']:.1f} |"
        )
    test = ", ".join(f"{100 * t['base']:.1f} to {100 * t['answer']:.1f}" for t in result["test"])
    lines += [
        "",
        f"Pairs whose peaks lie {APART} evaluations or more apart in every seed, the same one first: "
        f"{len(result['pairs_apart'])}; with the peaks dealt at random {result['pairs_by_chance']:.1f}.",
        f"Test macro-average, in %: {test}.",
        f"Gate: {result['gate']}.",
        "",
    ]
    return "\n".join(lines)


def draw(sweep: Mapping[str, Curves], chosen: str, confirmed: Sequence[Curves], file: Path) -> None:
    """Above, the macro-average at each rate; below, each sub-dataset's search score in each fresh seed."""
    tasks = list(confirmed[0].control)
    columns = 4
    rows = 1 + -(-len(tasks) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 2.1 * rows), layout="constrained")
    for panel, which in zip(axes[0], ("control", "report"), strict=False):
        for rate, curves in sweep.items():
            panel.plot(curves.epochs, [100 * value for value in curves.macro(which)], label=rate)
        panel.set_title(f"macro-average, {which} score", fontsize=9)
        panel.legend(title="learning rate", fontsize=7, title_fontsize=7)
    for panel in axes[0][2:]:
        panel.axis("off")
    for panel, task in itertools.zip_longest(axes[1:].flat, tasks):
        if task is None:
            panel.axis("off")
            continue
        for colour, curves in zip(("C0", "C1", "C2", "C3", "C4"), confirmed, strict=False):
            values = [100 * value for value in curves.control[task]]
            panel.plot(curves.epochs, values, color=colour, lw=1)
            at = curves.peaks[task]
            panel.plot(curves.epochs[at], values[at], "o", color=colour, ms=4)
        panel.set_title(f"{task}", fontsize=9)
    for panel in axes.flat:
        panel.tick_params(labelsize=7)
    figure.supxlabel(f"epochs  (sub-datasets: rate {chosen}, one line per seed, dots: peaks)", fontsize=9)
    figure.supylabel("validation score, %", fontsize=9)
    plt.rcParams["svg.hashsalt"] = "pilot"
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
