"""The training step: ours against TRL's `SFTTrainer` with its legal settings, on the same model, rows and steps.

    python benchmarks/step.py --data DATA --out step.json
    python benchmarks/step.py --data DATA --out step.json --only ours,padded:8 --minutes 9   # in pieces
    python benchmarks/step.py --data DATA --out step.json --profile step.txt   # ours under torch.profiler

Every run is a process of its own; contenders take turns; medians of the runs. What each setting of TRL is, and which
of them keep the global batches, stands in trl_steps.py; what the product rate is, in products.py. In `--only`, the
number after a name is the rows of a micro-batch; a name may come several times. `ours+mixed` and `ours+compiled` are
ours with bf16 copies of the weights, and with compiled layers too. Prints tables, and writes all of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from common import (
    Contender,
    Results,
    Work,
    add_options,
    contenders,
    has_trl,
    machine,
    run_child,
    table,
    take_turns,
    without_places,
    work_of,
)

CONTENDERS = "ours,padded:8,rebalanced:8,padding_free:8,packed:1"
SAME_BATCHES = ("padded", "rebalanced", "padding_free")
TARGETS = {"padded": 3.5, "packed": 1.6}
"""Ours as a multiple: in samples/s of the padded, in real tokens/s of the packed. All targets are for a CPU."""
MEMORY = 1.25
"""Our peak host memory at most, as a multiple of TRL's."""
PRODUCTS = 0.5
"""Our share of the product rate at least."""


def summary_of(results: Results, work: Work, products: dict[str, Any]) -> dict[str, Any]:
    """Medians over runs, ratios, differences of losses, and shares of the product rate."""
    found: dict[str, Any] = {
        label: _medians(runs, work, packed=_name(label) == "packed") for label, runs in results.content["runs"].items()
    }
    ideal = sum(products["product_seconds_per_step"].values()) / products["tokens_per_step"]
    per_token = sum(products["flops_per_step"].values()) / products["tokens_per_step"]
    for one in found.values():
        one["product_rate_share"] = ideal * one["tokens_per_second"]
        one["flops_per_second"] = per_token * one["tokens_per_second"]
    ours = found.get("ours")
    for label, one in found.items():
        if ours is None or label == "ours":
            continue
        rate = "tokens_per_second" if _name(label) in ("packed", "grouped") else "samples_per_second"
        one["ours_is_faster"] = ours[rate] / one[rate]
        one["ours_takes_memory"] = ours["peak_memory"] / one["peak_memory"]
        if _name(label) in SAME_BATCHES:
            pairs = zip(ours["losses"], one["losses"], strict=True)
            one["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
    return {"contenders": found, "targets": _judged(found) if work.device == "cpu" else []}


def _medians(runs: list[dict[str, Any]], work: Work, *, packed: bool) -> dict[str, Any]:
    # A packed step holds about a global batch's tokens, but not its examples.
    samples = [] if packed else [work.batch_size * len(run["seconds"]) / sum(run["seconds"]) for run in runs]
    tokens = [sum(run["tokens"][work.warm :]) / sum(run["seconds"]) for run in runs]
    devices = [run["peak_device"] for run in runs if run["peak_device"] is not None]
    return {
        "runs": len(runs),
        "seconds_per_step": statistics.median(statistics.median(run["seconds"]) for run in runs),
        "samples_per_second": statistics.median(samples) if samples else None,
        "samples_per_second_of_runs": samples,
        "tokens_per_second": statistics.median(tokens),
        "peak_memory": max(run["peak_memory"] for run in runs),
        "peak_memory_of_steps": max(run["peak_steps"] for run in runs),
        "peak_device": max(devices, default=None),
        "losses": runs[0]["losses"],
    }


def _judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was measured, against the fastest setting of its kind."""
    lines: list[dict[str, Any]] = []

    def add(what: str, measured: float, target: float, *, at_least: bool = True) -> None:
        met = measured >= target if at_least else measured <= target
        lines.append({"what": what, "measured": measured, "target": target, "met": met})

    for kind, names in (("padded", ("padded",)), ("padded", ("padded", "rebalanced")), ("packed", ("packed",))):
        peers = {label: one for label, one in found.items() if _name(label) in names and "ours_is_faster" in one}
        if not peers or (len(names) > 1 and not any(_name(label) == "rebalanced" for label in peers)):
            continue
        label, best = min(peers.items(), key=lambda peer: peer[1]["ours_is_faster"])
        unit = "real tokens/s" if kind == "packed" else "samples/s"
        add(f"ours / {label}, {unit}", best["ours_is_faster"], TARGETS[kind])
        add(f"ours / {label}, peak host memory", best["ours_takes_memory"], MEMORY, at_least=False)
    if "ours" in found:
        add("ours, share of the product rate", found["ours"]["product_rate_share"], PRODUCTS)
    return lines


def _name(label: str) -> str:
    return label.partition(":")[0]


def show(summary: dict[str, Any], products: dict[str, Any]) -> None:
    found = summary["contenders"]
    head = ("", "runs", "s/step", "samples/s", "real tokens/s", "ours is ... x as fast", "product rate", "peak GiB")
    lines = [
        (
            label, one["runs"], one["seconds_per_step"], one["samples_per_second"], one["tokens_per_second"],
            one.get("ours_is_faster"), f"{one['product_rate_share']:.1%}", one["peak_memory"] / 2**30,
        )
        for label, one in found.items()
    ]  # fmt: skip
    print("\n" + table(head, lines))
    rates = ", ".join(f"{label} {one['flops_per_second'] / 1e9:,.0f}" for label, one in found.items())
    print(f"\nGFLOP/s: {products['flops_per_second'] / 1e9:,.0f} in the step's own products; {rates} in steps")
    same = [label for label in found if _name(label).startswith("ours") or _name(label) in SAME_BATCHES]
    if same:
        steps = range(len(found[same[0]]["losses"]))
        rows = [[step + 1, *(f"{found[label]['losses'][step]:.6f}" for label in same)] for step in steps]
        print("\nLoss of each step, before its update:\n" + table(["step", *same], rows))
    for label, one in found.items():
        if "largest_loss_difference" in one:
            print(f"largest difference between ours and {label}: {one['largest_loss_difference']:.2g} nats")
    print()
    for line in summary["targets"]:
        sign = "met" if line["met"] else "MISSED"
        print(f"{line['what']}: {line['measured']:.3g} (target {line['target']}): {sign}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=3)
    parser.add_argument("--only", default=CONTENDERS, help="who runs (default: %(default)s)")
    parser.add_argument("--packed-length", type=int, default=512, help="tokens of a packed row (default: %(default)s)")
    parser.add_argument("--no-keep", action="store_true", help="do not write the last state to disk")
    parser.add_argument("--minutes", type=float, help="begin no run that would end later than that")
    parser.add_argument("--profile", type=Path, help="write torch.profiler's table of ours there, and nothing else")
    given = parser.parse_args()
    began = time.perf_counter()
    work = work_of(given, keep=not given.no_keep)
    if given.profile:
        run_child(Contender(name="ours"), work, profile=str(given.profile.resolve()))
        print(f"{given.profile}: the {work.steps - work.warm} timed steps of ours")
        return
    chosen = contenders(given.only, given.packed_length)
    if not has_trl() and not all(one.is_ours for one in chosen):
        print("TRL is skipped: trl and datasets are not installed here")
        chosen = [one for one in chosen if one.is_ours]
    results = Results(given.out, without_places(work) | {"packed_length": given.packed_length}, machine(work))
    ends = began + 60 * given.minutes if given.minutes else None
    done = take_turns(results, chosen, work, given.repeats, ends=ends)
    products = results.content.get("products") or run_child(Contender(name="products"), work, "products.py")
    results.write(products=products)
    summary = summary_of(results, work, products)
    results.write(summary=summary)
    show(summary, products)
    if not done:
        print("\nNot every run was begun: the same command goes on from --out")


if __name__ == "__main__":
    main()
