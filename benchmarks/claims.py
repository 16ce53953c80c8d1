"""The paper's claims on averaged weights, where the noise of constant-rate weights is gone; the cheap job.

    python benchmarks/grid.py OUT --part d --seeds 760:766
    python benchmarks/claims.py OUT --seeds 760:763
    python benchmarks/claims.py OUT --more EARLIER_OUT

Reads the runs of grid.py (parts c and d) and average_first.py, on whatever seeds are there, and adds those that the
studies `shift`, `budget` and `granularity` need beside them: on the same seeds, each of which draws its own rows. The
last command prints a table of claims: the studies' own sentences, differences with their intervals, and, where these
do not decide, how many seeds it would take.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any

import numpy as np
from average_first import all_measured, example, folders, run
from grid import differences, said
from peers import AVERAGED
from scipy import stats

from msft.config.schema import Config
from msft.report.story import Story, read_story
from msft.report.summary import summary_of
from msft.study import peaks
from msft.study.grid import Variant
from msft.study.own_moments import gains_over_seeds
from msft.study.reading import Evidence
from msft.study.statistics import Interval, t_interval, t_test
from msft.study.studies import STUDIES

NAMES = ("shift", "budget", "granularity")
KNOWN = {
    "all": "sft_average", "sft": "sft_average", "sft_10_100": "sft_average",
    "msft_10_100": "msft_average", "C_3": "msft_average",
}  # fmt: skip
"""Variants of these studies that part d of grid.py holds under another name."""
EARLIER = {
    "c cheap": {
        "sft": "sft_average", "msft": "msft_average", "placebo": "msft_average_placebo", "one_pass": "one_pass",
    }
}  # fmt: skip
"""Parts of grid.py with averages under other names; "d cheap" and "confirm cheap" have the names of this table."""


def config() -> Config:
    return example("cheap", AVERAGED.rate, average=AVERAGED.average)


def missing(name: str) -> list[Variant]:
    """The variants of a study that no other run has."""
    return [variant for variant in STUDIES[name].variants(config()) if variant.name not in KNOWN]


def stories(out: Path, stage: str, method: str) -> dict[int, Story]:
    """Seed to the finished run of a method."""
    return {seed: read_story(at) for where, name, seed, at in folders(out) if (where, name) == (stage, method)}


def findings(out: Path, name: str) -> list[str]:
    """What the study says of the seeds that have all of its runs."""
    runs = {variant.name: stories(out, f"{name} cheap", variant.name) for variant in missing(name)}
    wanted = [variant.name for variant in STUDIES[name].variants(config())]
    runs |= {alias: stories(out, "d cheap", KNOWN[alias]) for alias in wanted if alias in KNOWN}
    seeds = sorted(set.intersection(*(set(found) for found in runs.values())))
    if not seeds:
        return []
    same = {variant: {seed: runs[variant][seed] for seed in seeds} for variant in wanted}
    found = STUDIES[name].find(Evidence(config(), same, _no_job))
    rows = [" | ".join(_cell(cell) for cell in row) for table in found.tables for row in (table.columns, *table.rows)]
    return [f"n {len(seeds)}, seeds {seeds[0]}-{seeds[-1]}", *found.said, *rows]


def _cell(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def _no_job(variant: str, seed: int) -> Any:
    raise AssertionError(f"nothing is repeated: {variant} {seed}")


def peaks_said(found: Sequence[Story]) -> list[str]:
    """The study of peaks on plain fine-tuning, whatever the folder of each run."""
    made = peaks.find(Evidence(config(), {"sft": dict(enumerate(found))}, _no_job))
    return [f"n {len(found)}", *made.said, *(" | ".join(map(_cell, row)) for row in made.tables[0].rows)]


def in_points(gain: Interval) -> str:
    return f"{100 * gain.mean:+.2f} ({100 * (gain.low or 0):+.2f} to {100 * (gain.high or 0):+.2f})"


def seeds_for(spread: float, effect: float, power: float = 0.8) -> int:
    """The number of paired seeds with which a true difference `effect` is shown (p < 0.05) with this probability, if
    differences have this standard deviation."""
    for count in range(2, 100_000):
        centre = effect / spread * np.sqrt(count)
        limit = stats.t.ppf(0.975, count - 1)
        if stats.nct.sf(limit, count - 1, centre) + stats.nct.cdf(-limit, count - 1, centre) >= power:
            return count
    raise AssertionError("no number of seeds would do")


def decided(away: Sequence[float], label: str) -> str:
    """A difference, and, if it is not shown, how many seeds half a point would take."""
    p = t_test(away)
    line = f"{label}: {said(away)}; p {p if p is None else round(p, 4)}"
    if len(away) > 2 and (p is None or p >= 0.05) and stdev(away) > 0:
        line += f"; to show 0.5 points: {seeds_for(stdev(away), 0.5)} seeds"
    return line


def pooled(outs: Sequence[Path]) -> dict[str, dict[int, dict[str, Any]]]:
    """Method to seed to its run on averages, over the parts that ran the cheap job at one rate."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for out in outs:
        for stage, methods in all_measured(out).items():
            names = EARLIER.get(stage, {} if stage not in ("d cheap", "confirm cheap") else {m: m for m in methods})
            for name, seeds in methods.items():
                if name in names:
                    found.setdefault(names[name], {}).update(seeds)
    return found


def spread_of(runs: Mapping[int, dict[str, Any]]) -> dict[int, float]:
    return {seed: 100 * pstdev(made["reports"].values()) for seed, made in runs.items()}


def last_losses(found: Mapping[int, Story]) -> dict[int, float]:
    """The training loss of the last segment of the final path."""
    ends = {}
    for seed, story in found.items():
        recorded = {number: outcome.train_loss for number, (_, outcome) in enumerate(story.segments, 1)}
        ends[seed] = [loss for p in story.trunk if (loss := recorded.get(p.snapshot)) is not None][-1]
    return ends


def disk(out: Path, method: str) -> list[float]:
    """Maximum of bytes held, in that which SFT keeps."""
    kept = [summary_of(story)["disk"] for story in stories(out, "d cheap", method).values()]
    return [each["peak_bytes"] / each["sft_bytes"] for each in kept]


def table(out: Path, more: Sequence[Path]) -> None:
    runs = pooled([out, *more])
    print("## peaks")
    firsts = [each for at in (out, *more) for each in _plain(at)]
    print("\n".join(peaks_said(firsts)))
    for gain, kind in zip(gains_over_seeds(firsts), ("search score", "test metric"), strict=True):
        print(f"own moments over the common moment, read from other seeds, {kind}: {in_points(gain)}")
    for name in NAMES:
        if lines := findings(out, name):
            print(f"\n## {name}")
            print("\n".join(lines))
    print("\n## differences")
    for one, other in (
        ("msft_average", "sft_average"),
        ("msft_average", "msft_average_placebo"),
        ("msft_average", "sro"),
        ("msft_average", "one_pass"),
        ("continual", "sft_average"),
    ):
        if one in runs and other in runs and len(runs[one].keys() & runs[other].keys()) > 2:
            for what, kind in (("reports", "test accuracy"), ("scores", "search score")):
                print(decided(differences(runs[one], runs[other], what), f"{one} - {other}, {kind}"))
    for other in ("sft_average", "sft_decay"):
        one, two = spread_of(runs["msft_average"]), spread_of(runs[other])
        away = [one[seed] - two[seed] for seed in sorted(one.keys() & two.keys())]
        print(decided(away, f"spread over sub-datasets, msft_average - {other}"))
    losses = {method: last_losses(stories(out, "d cheap", method)) for method in ("msft_average", "sft_average")}
    both = sorted(losses["msft_average"].keys() & losses["sft_average"].keys())
    print({method: round(fmean(by_seed[seed] for seed in both), 3) for method, by_seed in losses.items()}, "last loss")
    print(said([losses["msft_average"][seed] - losses["sft_average"][seed] for seed in both]))
    for method in ("sft_average", "msft_average"):
        held = t_interval(disk(out, method))
        print(f"disk, {method}: {held.mean:.2f}")


def _plain(out: Path) -> list[Story]:
    named = {"d cheap": "sft_average", "confirm cheap": "sft_average", "c cheap": "sft"}
    return [story for stage, method in named.items() for story in stories(out, stage, method).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", help="first:beyond; without it, the tables of what is there")
    parser.add_argument("--studies", default=",".join(NAMES), help="(default: %(default)s)")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="folders of earlier campaigns")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no run is begun after them (default: 3600)")
    given = parser.parse_args()
    if given.seeds is None:
        table(given.out, given.more)
        return
    began = time.monotonic()
    for seed in range(*map(int, given.seeds.split(":"))):
        for name in given.studies.split(","):
            if time.monotonic() - began > given.seconds:
                print("the time is over: the same command goes on")
                return
            run(given.out / name / "cheap" / str(seed), missing(name), seed)
            print(f"{name} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
