"""Does the precision change what a search reads? SFT with averages on the job of examples/cheap.yaml, paired by seed.

    python examples/cheap_model.py
    python benchmarks/precisions.py OUT --seeds 620:623

The same runs in fp32, under bf16 autocast, and with bf16 copies of fp32 weights (`mixed`), whose residual stream is
bf16 too. Printed are the search scores of the final models on the test split, their differences from fp32, and beside
them the differences between seeds. On a CPU without native bf16 the latter two are slow. The same command goes on from
what an earlier one has run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

from average_first import job, measured, named

from msft.record.run_folder import RunFolder
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.runs import run_grid

PRECISIONS = ("fp32", "autocast", "mixed")
RATE = 1.5e-3


def variant(precision: str) -> Variant:
    plain = job("cheap", RATE)
    model = plain.model.model_copy(update={"precision": precision})
    made = named(plain.model_copy(update={"model": model}), "sft_average")
    return Variant(name=precision, config=made.config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="620:623", help="first:beyond (default: %(default)s)")
    given = parser.parse_args()
    first, beyond = map(int, given.seeds.split(":"))
    seeds = tuple(range(first, beyond))
    variants = tuple(map(variant, PRECISIONS))
    found = run_grid(StudyFolder(given.out), Grid(kind="compare", variants=variants, seeds=seeds))
    for (name, seed), failure in found.items():
        print(f"{name}, seed {seed}: {failure}")
    scores = {
        name: [fmean(measured(RunFolder(given.out / "runs" / name / str(seed)))["scores"].values()) for seed in seeds]
        for name in PRECISIONS
    }
    for name, mine in scores.items():
        away = [100 * (one - plain) for one, plain in zip(mine, scores["fp32"], strict=True)]
        print(
            f"{name:9} {100 * fmean(mine):6.2f} (seeds differ by {100 * stdev(mine):.2f})   "
            f"minus fp32: {fmean(away):+.2f} (each: {', '.join(f'{one:+.2f}' for one in away)})"
        )


if __name__ == "__main__":
    main()
