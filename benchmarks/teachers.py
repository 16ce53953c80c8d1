"""Does it pay to teach each sub-dataset from its own peak? Three small jobs; each seed draws its own rows.

    python examples/cheap_model.py && python examples/cheap_model.py --noisy
    python benchmarks/teachers.py OUT --seeds 880:892 --seconds 3600
    python benchmarks/teachers.py OUT --part auto --seeds 920:936
    python benchmarks/teachers.py OUT --part size --seeds 920:936 --jobs uneven
    python benchmarks/teachers.py OUT --part scarce --seeds 1000:1048 --jobs 30x1 30x4
    python benchmarks/teachers.py OUT --part rule --seeds 1100:1124 --jobs 30x1 30x4
    python benchmarks/teachers.py OUT --part rule --seeds 1100:1112 --jobs cheap noisy
    python benchmarks/teachers.py OUT

`self_distil` at the rate that development seeds chose (peers.py), beside plain SFT on averages at its own rate, at that
of `self_distil`, and for twice the epochs, which is what the teacher's run costs. Controls for the peaks: one teacher
for all sub-datasets, and the same teachers dealt to them at random. Planned: twelve seeds; confirmatory are test
accuracy of `self_distil` minus `sft_average` on the jobs uneven and cheap.

Part auto: `auto`, which has its second run only where the headroom of the first one says that it can pay, at the rate
of `self_distil`, beside plain SFT at both rates. On uneven also the controls: the peaks dealt at random, a search by
exclusion at the rate of plain SFT, and `self_distil`. Planned: sixteen seeds; confirmatory is test accuracy of `auto`
minus `sft_average` on uneven. On cheap and noisy, with little to gain, `auto` must not be worse by 0.3 points.

Part size: the job uneven, on the seeds of part auto, with its sub-datasets drawn by size, which is what one would do
instead of drawing them equally often; the table also holds `auto` of part auto against plain SFT of this part.

Part scarce: 30 examples of each sub-dataset on average, as many of each or 4 times as many of the largest as of the
smallest, drawn by size, so that nothing is repeated more than anything else. Planned: sixteen seeds (960 on), then 48
more (1000 on); confirmatory is test accuracy of `self_distil` minus plain SFT on averages, at the rate of the two that
is better on validation (search score, mean over seeds); Holm over both jobs. The rate 6e-3 was added after the first
sixteen were seen, plain SFT for twice the epochs after all.

Part rule: `auto` with the rule that it has by default since part scarce: a second run where the whole headroom, not
half of it, is more than two standard errors. Beside it plain SFT at the same rate. Planned: 24 seeds; confirmatory is
test accuracy of `auto` minus plain SFT on both jobs with scarce data, with Holm's correction. On cheap and noisy,
twelve seeds, `auto` must not be worse by 0.3 points.

The table is of what is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from average_first import all_measured, example, run
from grid import RATES, differences, said
from headroom_gains import Made, config_of

from msft.config.schema import Config
from msft.study.grid import Variant
from msft.study.overrides import with_method
from msft.study.statistics import holm, t_test
from msft.study.variants import variants

RATE = 3e-3
"""Of `self_distil`, chosen on development seeds."""
FASTER = 6e-3
BETTER = f"sft_average at {RATE:g}"
"""Of the two planned plain rates of part scarce, the better one on validation, on both jobs."""
CAREFUL = 0.5
"""`realised` of `auto`, by default, before part rule."""
JOBS = ("uneven", "cheap", "noisy")
SCARCE = ("30x1", "30x4")
"""Variants of headroom_gains.py: examples of a sub-dataset on average, and the largest over the smallest."""


def made(job: str) -> Iterator[Variant]:
    plain, taught = (example(job, rate, average=1.0) for rate in (RATES[job], RATE))
    yield from variants(plain, ["sft_average", "msft_average"])
    longer = with_method(plain, "sft", max_epochs=2 * plain.method.horizon)
    yield Variant(name="sft_average, twice the epochs", config=longer)
    if RATES[job] != RATE:
        (other,) = variants(taught, ["sft_average"])
        yield replace(other, name=f"sft_average at {RATE:g}")
    for teachers in ("own", "common", "random"):
        name = "self_distil" if teachers == "own" else f"self_distil, {teachers}"
        yield Variant(name=name, config=with_method(taught, "self_distil", teachers=teachers))


def careful(taught: Config) -> Variant:
    """`auto` with the rule that it had in these parts, which asks for a larger headroom than its default."""
    return Variant(name="auto", config=with_method(taught, "auto", realised=CAREFUL))


def made_rule(job: str) -> Iterator[Variant]:
    """Plain SFT and `auto` at the same rate, so that they differ by the second run only."""
    taught = scarce(job, RATE) if job in SCARCE else example(job, RATE, average=1.0)
    yield from variants(taught, ["sft_average", "auto"])


def made_auto(job: str) -> Iterator[Variant]:
    plain, taught = (example(job, rate, average=1.0) for rate in (RATES[job], RATE))
    yield from variants(plain, ["sft_average"])
    if RATES[job] != RATE:
        (other,) = variants(taught, ["sft_average"])
        yield replace(other, name=f"sft_average at {RATE:g}")
    yield careful(taught)
    if job == "uneven":
        (placebo,) = variants(taught, ["auto_placebo"])
        yield replace(placebo, config=with_method(placebo.config, "auto", peaks="random", realised=CAREFUL))
        yield Variant(name="auto, exclude", config=with_method(plain, "auto", second="exclude"))
        yield Variant(name="self_distil", config=with_method(taught, "self_distil"))


def made_size(job: str) -> Iterator[Variant]:
    plain, taught = (example(job, rate, "size", average=1.0) for rate in (RATES[job], RATE))
    yield from variants(plain, ["sft_average"])
    (other,) = variants(taught, ["sft_average"])
    yield replace(other, name=f"sft_average at {RATE:g}")
    yield careful(taught)


def scarce(job: str, rate: float) -> Config:
    number, uneven = map(int, job.split("x"))
    made = config_of(Made(uneven, False, number), rate)
    return made.model_copy(update={"data": made.data.model_copy(update={"mixing": "size"})})


def made_scarce(job: str) -> Iterator[Variant]:
    by_rate = {}
    for rate in (RATES["uneven"], RATE, FASTER):
        by_rate[rate] = scarce(job, rate)
        (plain,) = variants(by_rate[rate], ["sft_average"])
        yield plain if rate == RATES["uneven"] else replace(plain, name=f"sft_average at {rate:g}")
    taught = by_rate[RATE]
    longer = with_method(taught, "sft", max_epochs=2 * taught.method.horizon)
    yield Variant(name=f"{BETTER}, twice the epochs", config=longer)
    yield careful(taught)
    yield Variant(name="self_distil", config=with_method(taught, "self_distil"))
    yield Variant(name="self_distil, random", config=with_method(taught, "self_distil", teachers="random"))
    yield Variant(name=f"self_distil at {FASTER:g}", config=with_method(by_rate[FASTER], "self_distil"))


PARTS = {"teachers": made, "auto": made_auto, "size": made_size, "scarce": made_scarce, "rule": made_rule}
LEAD = {"teachers": "self_distil", "auto": "auto", "size": "auto", "scarce": "self_distil", "rule": "auto"}
"""The method that a part is about."""
CONFIRMED = {"teachers": ("uneven", "cheap"), "auto": ("uneven",), "size": (), "scarce": SCARCE, "rule": SCARCE}


def table(out: Path) -> None:
    confirmed: dict[str, dict[str, float]] = {}
    measured = all_measured(out)
    for place, found in measured.items():
        part, job = place.split()
        lead = LEAD[part]
        print(f"\n## {place}\n\n| | n | second runs | test accuracy | search score | FLOPs |")
        print("|---|---:|---:|---:|---:|---:|")
        plain, taught = found[BETTER if part == "scarce" else "sft_average"], found[lead]
        for name, seeds in found.items():
            both = sorted(seeds.keys() & plain.keys())
            cost = fmean(seeds[seed]["flops"] / plain[seed]["flops"] for seed in both)
            means = [100 * fmean(fmean(one[what].values()) for one in seeds.values()) for what in ("reports", "scores")]
            second = sum(one["searched"] for one in seeds.values())
            print(f"| {name} | {len(seeds)} | {second} | {means[0]:.2f} | {means[1]:.2f} | {cost:.2f} |")
        print()
        for name, seeds in found.items():
            for other, against in (("plain SFT", plain), (lead, taught)):
                if seeds is against or (other == lead and seeds is plain):
                    continue
                for what, kind in (("reports", "accuracy"), ("scores", "search score")):
                    away = differences(seeds, against, what)
                    if len(away) < 3:
                        continue
                    print(f"- {name} - {other}, {kind}: {said(away)}")
                    if (name, other, kind) == (lead, "plain SFT", "accuracy") and job in CONFIRMED[part]:
                        confirmed.setdefault(part, {})[job] = t_test(away) or 1.0
    across(measured)
    for part, jobs in confirmed.items():
        for job, p in holm(jobs).items():
            print(f"\n{LEAD[part]} - plain SFT, accuracy, {job}: p {p:.2g} after Holm")


def across(measured: dict[str, Any]) -> None:
    """`auto` with sub-datasets drawn equally often against plain SFT with sub-datasets drawn by size."""
    if not {"auto uneven", "size uneven"} <= measured.keys():
        return
    print("\n## auto, drawn equally often, against plain SFT, drawn by size\n")
    for name in ("sft_average", f"sft_average at {RATE:g}", "auto"):
        for what, kind in (("reports", "accuracy"), ("scores", "search score")):
            away = differences(measured["auto uneven"]["auto"], measured["size uneven"][name], what)
            print(f"- auto - {name} by size, {kind}: {said(away)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", help="first:beyond; without it, the table")
    parser.add_argument("--part", choices=PARTS, default="teachers")
    parser.add_argument("--jobs", nargs="+", choices=(*JOBS, *SCARCE), default=JOBS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no job begins after so many")
    given = parser.parse_args()
    if given.seeds is None:
        table(given.out)
        return
    began = time.monotonic()
    for seed in range(*map(int, given.seeds.split(":"))):
        for job in given.jobs:
            if time.monotonic() - began > given.seconds:
                print("the time is over: the same command goes on")
                return
            run(given.out / given.part / job / str(seed), list(PARTS[given.part](job)), seed)
            print(f"{job} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
