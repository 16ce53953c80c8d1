"""Does it pay to train the final run on all rows (`method.refit`), those that were held out for validation included?

    python examples/cheap_model.py
    python benchmarks/refit.py OUT --seeds 830:838 --held 50
    python benchmarks/refit.py OUT --job uneven --rate 3e-3 --methods sft self_distil --seeds 850:858 --held 50

A small job with validation carved from the training rows: each sub-dataset of cheap has 24 to 120 rows to train on, of
uneven 10 to 160, and HELD beside them. Methods on averaged weights, each with and without `method.refit`, paired by
seed; each seed draws its own rows and splits. Test metric: exact match on 200 items of each sub-dataset. The same
command goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev

from average_first import JOBS, example
from grid import said
from peers import AVERAGED

from msft.config.dataset_section import SplitConfig
from msft.config.schema import Config
from msft.run.session import train
from msft.study.overrides import with_method
from msft.study.positions import Silent


def carved(job: str, rate: float, seed: int, held: int) -> Config:
    """A job whose validation items are taken from its training rows."""
    config = example(job, rate, average=AVERAGED.average)
    datasets = tuple(
        dataset.model_copy(
            update={
                "max_samples": (dataset.max_samples or 0) + held,
                "validation": SplitConfig(max_samples=held),
            }
        )
        for dataset in config.datasets
    )
    data = config.data.model_copy(update={"seed": seed})
    return config.model_copy(update={"datasets": datasets, "data": data})


def reached(out: Path, config: Config, method: str, held: int, *, refit: bool) -> float:
    """The macro-average of the final model's test scores, in points; the run is made or continued where it is not."""
    folder = out / f"{method}{'-refit' if refit else ''}-{held}" / str(config.data.seed)
    if not (folder / "summary.json").exists():
        config = with_method(config, method, **({"refit": True} if refit else {}))
        train(config.model_copy(update={"output": str(folder)}), Silent(), resume=folder.exists())
    found: float = json.loads((folder / "summary.json").read_text())["macro"]["test"]["answer"]
    return 100 * found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="830:838", help="first:beyond (default: %(default)s)")
    parser.add_argument("--job", choices=JOBS, default="cheap")
    parser.add_argument("--rate", type=float, default=AVERAGED.rate, help="learning rate (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=["sft", "msft"])
    parser.add_argument("--held", type=int, default=50, help="rows of each sub-dataset held out (default: 50)")
    given = parser.parse_args()
    seeds = range(*map(int, given.seeds.split(":")))
    points: dict[tuple[str, bool], list[float]] = {(m, r): [] for m in given.methods for r in (False, True)}
    for seed in seeds:
        config = carved(given.job, given.rate, seed, given.held)
        for (method, refit), found in points.items():
            found.append(reached(given.out, config, method, given.held, refit=refit))
        print(f"seed {seed}: {', '.join(f'{found[-1]:.2f}' for found in points.values())}", flush=True)
    for (method, refit), found in points.items():
        print(f"{method}{', refit' if refit else ''}: {fmean(found):.2f} (sd {stdev(found):.2f})")
    for method in given.methods:
        away = [after - before for before, after in zip(points[method, False], points[method, True], strict=True)]
        print(f"{method}, refit - without: {said(away)}")


if __name__ == "__main__":
    main()
