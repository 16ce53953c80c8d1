"""Three simple things to do with a search's compute, or with its validation items, on the seeds of grid.py's part d.

    python benchmarks/grid.py OUT --part d --seeds 760:766
    python benchmarks/simple_rivals.py OUT
    python benchmarks/simple_rivals.py OUT --table

A search costs as much as a second run, and its validation items could be trained on. So: `again`, the same rows trained
in another order by another training seed, of which validation then chooses the better run; `longer`, SFT with averages
for twice the epochs; and `all rows`, SFT with averages on training and validation rows together, for the epochs that
validation chose in the run of part d. Its final model is its end. All for each seed of part d that has the run of
`sft_average`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from average_first import all_measured, example
from grid import differences, said
from peers import AVERAGED

from msft.config.schema import Config, DatasetConfig
from msft.data.sources import Source
from msft.data.splits import split
from msft.report.story import read_story
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.overrides import with_method
from msft.study.runs import run_grid

OTHER_SEED = 10_000
"""Added to the training seed of the second run."""


def base(seed: int) -> Config:
    """SFT on averages with the rows of a seed."""
    config = with_method(example("cheap", AVERAGED.rate, average=AVERAGED.average), "sft")
    return config.model_copy(update={"data": config.data.model_copy(update={"seed": seed})})


def all_rows(config: Config, folder: Path, epochs: float) -> Config:
    """The configuration with its validation rows among its training rows, for so many epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    datasets = tuple(_with_validation(dataset, config.data.seed, folder) for dataset in config.datasets)
    return with_method(config.model_copy(update={"datasets": datasets}), "sft", max_epochs=epochs, select="last")


def _with_validation(dataset: DatasetConfig, seed: int, folder: Path) -> DatasetConfig:
    found = split(dataset, Source(dataset, seed), seed)
    parts = {"train": [*found.train, *found.validation], "validation": found.validation, "test": found.test}
    rows = [dict(row.values) | {"split": name} for name, part in parts.items() for row in part]
    file = (folder / f"{dataset.id}.jsonl").resolve()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert dataset.validation is not None and dataset.test is not None
    held = {
        kind: getattr(dataset, kind).model_copy(update={"max_samples": None, "path": None})
        for kind in ("validation", "test")
    }
    return dataset.model_copy(update={"path": str(file), "max_samples": None, **held})


def go(out: Path, seed: int) -> None:
    plain = read_story(StudyFolder(out / "d" / "cheap" / str(seed)).run("sft_average", seed))
    assert plain.answer is not None
    epochs = plain.answer.epoch
    made = {
        "again": (base(seed), seed + OTHER_SEED),
        "longer": (with_method(base(seed), "sft", max_epochs=2 * base(seed).method.horizon), seed),
        "all-rows": (all_rows(base(seed), out / "rows" / str(seed), epochs), seed),
    }
    for name, (config, training_seed) in made.items():
        grid = Grid(kind="compare", variants=(Variant(name=name, config=config),), seeds=(training_seed,))
        failures = run_grid(StudyFolder(out / name / "cheap" / str(seed)), grid)
        assert not failures, failures


def better(one: Mapping[int, dict[str, Any]], two: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Of two runs of each seed, that with the higher validation accuracy, at the cost of both."""
    found = {}
    for seed in one.keys() & two.keys():
        pair = (one[seed], two[seed])
        best = max(pair, key=lambda run: fmean(run["validation"].values()))
        found[seed] = best | {"flops": sum(run["flops"] for run in pair)}
    return found


def table(out: Path) -> None:
    found = all_measured(out)
    plain = found["d cheap"]["sft_average"]
    again = {seed - OTHER_SEED: run for seed, run in found["again cheap"]["again"].items()}
    rivals = {
        "the better of two": better(plain, again),
        "longer": found["longer cheap"]["longer"],
        "all rows": found["all-rows cheap"]["all-rows"],
    }
    for name, runs in rivals.items():
        cost = fmean(run["flops"] / plain[seed]["flops"] for seed, run in runs.items() if seed in plain)
        for what, kind in (("reports", "test accuracy"), ("scores", "search score")):
            away = said(differences(runs, plain, what))
            print(f"- {name} - sft_average, {kind}: {away}; FLOPs {cost:.2f}; seeds {min(runs)}-{max(runs)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        table(given.out)
        return
    began = time.monotonic()
    for summary in sorted((given.out / "d" / "cheap").glob("*/runs/sft_average/*/summary.json")):
        go(given.out, int(summary.parent.name))
        print(f"seed {summary.parent.name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
