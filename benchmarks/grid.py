"""Does a search on averaged weights beat its placebo? Three small jobs, paired by seed; each seed draws its own rows.

    python examples/cheap_model.py && python examples/cheap_model.py --noisy
    python benchmarks/grid.py OUT --part c --seeds 740:760 --seconds 3600
    python benchmarks/grid.py OUT --part d --seeds 740:746
    python benchmarks/grid.py OUT

Part c, on the jobs cheap, uneven and noisy: plain SFT, mSFT with the example's own settings, its placebo (the same
times, dealt to sub-datasets at random), one_pass, and SFT for as long as mSFT's FLOPs last, all on averaged weights at
the rate that was chosen for plain SFT with averages on development seeds. Confirmatory: mSFT minus its placebo. Part s:
the uneven job drawn by size, on the same seeds. Part d, on cheap: what else one could do, each at one setting of
peers.py, descriptive, and the controls of auto where it searched or ended early; part r: the paper's `msft:release`.
Seeds go round the jobs, so that all have as many where the time (`--seconds`) ends; the same command goes on. Without a
part, the tables of what is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeAlias

from average_first import JOBS, all_measured, example, run, searched
from peers import PEERS, RAW, all_peers, controls_of

from msft.record.run_folder import RunFolder
from msft.report.story import read_story
from msft.study.grid import StudyFolder, Variant
from msft.study.statistics import holm, t_interval, t_test
from msft.study.variants import variants

Runs: TypeAlias = dict[int, dict[str, Any]]
"""Seed to what was measured."""
RATES = {"cheap": 1.5e-3, "uneven": 1.5e-3, "noisy": 3e-3}
"""Of plain SFT with averages, chosen on development seeds (docs/results/headroom.md)."""
SEARCHES = ("sft", "msft", "placebo", "one_pass", "sft_equal_flops")
DEFAULT_JOBS = {"c": list(JOBS), "s": ["uneven"], "d": ["cheap"], "r": ["cheap"]}


def part_c(name: str) -> list[Variant]:
    return list(variants(example(name, RATES[name], average=1.0), list(SEARCHES)))


def part_s() -> list[Variant]:
    """The uneven job with its sub-datasets drawn by size: what one would do instead of drawing them equally often."""
    plain = example("uneven", RATES["uneven"], "size", average=1.0)
    return [Variant(name=f"{made.name} by size", config=made.config) for made in variants(plain, ["sft", "msft"])]


def part_d() -> list[Variant]:
    """The settings are those of peers.py. `msft:release` comes alone (part r), as it takes eight times as long."""
    return all_peers(PEERS)


def part_r() -> list[Variant]:
    return all_peers({RAW: ["msft:release"]})


PARTS: dict[str, Callable[[str], list[Variant]]] = {
    "c": part_c, "s": lambda _: part_s(), "d": lambda _: part_d(), "r": lambda _: part_r(),
}  # fmt: skip


def go(out: Path, part: str, jobs: Sequence[str], seeds: Sequence[int], seconds: float) -> None:
    began = time.monotonic()
    for seed in seeds:
        for name in jobs:
            if time.monotonic() - began > seconds:
                print("the time is over: the same command goes on")
                return
            folder = out / part / name / str(seed)
            run(folder, PARTS[part](name), seed)
            if part == "d" and not plain(StudyFolder(folder).run("auto", seed)):
                run(out / "controls" / name / str(seed), controls_of(), seed)
            print(f"{part} {name} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


def plain(auto: RunFolder) -> bool:
    """Whether auto neither searched nor ended early, so that it is sft_average bit for bit."""
    story = read_story(auto)
    return not searched(auto) and story.rollouts[0].end.epoch > story.brief.horizon - 1e-6


def table(out: Path) -> None:
    found: dict[str, dict[str, Runs]] = all_measured(out)
    shown: dict[str, float] = {}
    for stage, by_variant in sorted(found.items()):
        print(f"\n## {stage}")
        print("| | n | seeds | test metric | search score | FLOPs of the first |")
        print("|---|---:|---|---:|---:|---:|")
        first = next(iter(by_variant))
        for variant, seeds in by_variant.items():
            values = {what: [100 * fmean(r[what].values()) for r in seeds.values()] for what in ("reports", "scores")}
            both = sorted(seeds.keys() & by_variant[first].keys())
            cost = fmean(seeds[s]["flops"] / by_variant[first][s]["flops"] for s in both) if both else float("nan")
            cells = [f"{fmean(v):.2f} (sd {stdev(v) if len(v) > 1 else 0:.2f})" for v in values.values()]
            print(f"| {variant} | {len(seeds)} | {min(seeds)}-{max(seeds)} | {cells[0]} | {cells[1]} | {cost:.2f} |")
        for against in ("placebo", "sft") if "placebo" in by_variant else ("sft_average",):
            for variant in by_variant:
                if variant == against or against not in by_variant:
                    continue
                for what, kind in (("reports", "test metric"), ("scores", "search score")):
                    away = differences(by_variant[variant], by_variant[against], what)
                    if len(away) < 3:
                        continue
                    print(f"- {variant} - {against}, {kind}: {said(away)}")
                    if (variant, against) == ("msft", "placebo"):
                        shown[f"{stage}, {kind}"] = t_test(away) or 1.0
    if shown:
        print("\nmsft - placebo, p after Holm:")
        for name, p in holm(shown).items():
            print(f"- {name}: {p:.3g}")


def differences(one: Runs, other: Runs, what: str) -> list[float]:
    """[seeds] the differences of the macro-averages, in points."""
    both = sorted(one.keys() & other.keys())
    return [100 * (fmean(one[s][what].values()) - fmean(other[s][what].values())) for s in both]


def said(away: Sequence[float]) -> str:
    interval = t_interval(away)
    return f"{interval.mean:+.2f} ({interval.low or 0:+.2f} to {interval.high or 0:+.2f}), n {len(away)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--jobs", help="(default: all three for part c)")
    parser.add_argument("--seeds", default="740:760", help="first:beyond (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no seed is begun after them (default: 3600)")
    given = parser.parse_args()
    if given.part is None:
        table(given.out)
        return
    first, beyond = map(int, given.seeds.split(":"))
    jobs = given.jobs.split(",") if given.jobs else DEFAULT_JOBS[given.part]
    go(given.out, given.part, jobs, range(first, beyond), given.seconds)


if __name__ == "__main__":
    main()
