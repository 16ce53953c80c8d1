"""What else one could do on the cheap job: the settings of each method, chosen on development seeds.

    python examples/cheap_model.py
    python benchmarks/peers.py OUT develop --seeds 610:613
    python benchmarks/peers.py OUT chosen

`develop` runs the methods whose setting was not known (rate, and whether weights are averaged) at each of a few;
`chosen` prints the mean accuracy of their final models on the validation split, by which the settings in `PEERS` were
chosen. `grid.py` runs them on fresh seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from average_first import all_measured, example, run, searching

from msft.study.grid import Variant
from msft.study.overrides import with_method
from msft.study.variants import variants


class Setting(NamedTuple):
    """How a method trains on the cheap job."""

    rate: float
    average: float | None = None
    """Window of the averaged weights, in epochs."""
    schedule: str = "constant"


AVERAGED, RAW, FALLING = Setting(1.5e-3, 1.0), Setting(3e-3), Setting(8e-3)
"""AVERAGED and FALLING were chosen for plain SFT (docs/results/averages.md); RAW is the example's own."""
FALLING_AVERAGED = Setting(8e-3, 1.0, "linear")
OPEN = {
    **{name: [AVERAGED, Setting(3e-3, 1.0), RAW] for name in ("coba", "dynamix", "merge", "merge:ties", "self_distil")},
    "temperature": [AVERAGED, Setting(3e-3, 1.0)],
    "sft": [Setting(3e-3, 1.0, "linear"), FALLING_AVERAGED],
    "wsd": [Setting(1.5e-3), RAW, FALLING],
}
"""Method to the settings among which development chose. `sft` is the one with a falling rate and averages."""
PEERS = {
    AVERAGED: [
        "sft_average", "auto", "msft_average", "msft_average_placebo", "one_pass", "sro", "temperature", "coba",
        "dynamix", "continual",
    ],
    FALLING: ["sft_decay", "wsd"],
    FALLING_AVERAGED: ["sft"],
    RAW: ["msft", "merge", "merge:ties"],
    Setting(3e-3, 1.0): ["self_distil"],
}  # fmt: skip
"""What grid.py compares on fresh seeds."""
FALLING_NAME, COOLED_NAME = "sft_decay on averages", "wsd at 3e-3"
"""`wsd` alone was first run at plain SFT's falling rate, before a rate was chosen for it."""
AUTO_CONTROLS = ["auto", "auto_placebo", "sft_average_equal_flops", "sft_average_early"]


def of(setting: Setting, methods: Sequence[str]) -> list[Variant]:
    """Methods of the cheap job at one setting. Of `self_distil` the paper's form, one teacher for all sub-datasets:
    `teachers.py` compares it with ours."""
    base = example("cheap", setting.rate, average=setting.average)
    found = [scheduled(variant, setting.schedule) for variant in searching(variants(base, methods))]
    return [
        replace(v, config=with_method(v.config, "self_distil", teachers="common")) if v.name == "self_distil" else v
        for v in found
    ]


def scheduled(variant: Variant, schedule: str) -> Variant:
    if schedule == "constant":
        return variant
    training = variant.config.training.model_copy(update={"schedule": schedule})
    return replace(variant, name=FALLING_NAME, config=variant.config.model_copy(update={"training": training}))


def all_peers(settings: Mapping[Setting, Sequence[str]]) -> list[Variant]:
    (cooled,) = of(RAW, ["wsd"])
    found = [variant for setting, methods in settings.items() for variant in of(setting, methods)]
    return [*found, replace(cooled, name=COOLED_NAME)] if settings is PEERS else found


def controls_of() -> list[Variant]:
    """What is compared with auto where it searched or ended early; where it did neither, all are sft_average."""
    return of(AVERAGED, AUTO_CONTROLS)


def candidates() -> Iterator[Variant]:
    for method, settings in OPEN.items():
        for setting in settings:
            kind = "raw" if setting.average is None else "averages"
            (variant,) = of(setting, [method])
            yield replace(variant, name=f"{method} {setting.rate:g} {kind}".replace(":", " "))


def chosen(out: Path) -> None:
    found = all_measured(out)["develop cheap"]
    for name, seeds in found.items():
        values = [100 * fmean(run["validation"].values()) for run in seeds.values()]
        spread = f"sd {stdev(values):.2f}, " if len(values) > 1 else ""
        print(f"{name:28s} {fmean(values):.2f} ({spread}n {len(values)}, seeds {min(seeds)}-{max(seeds)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("stage", choices=("develop", "chosen"))
    parser.add_argument("--seeds", default="610:613", help="first:beyond (default: %(default)s)")
    given = parser.parse_args()
    if given.stage == "chosen":
        chosen(given.out)
        return
    began = time.monotonic()
    for seed in range(*map(int, given.seeds.split(":"))):
        run(given.out / "develop" / "cheap" / str(seed), list(candidates()), seed)
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
