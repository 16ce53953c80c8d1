"""The benchmarks on a GPU, in one command of at most ten minutes; needs no files: models are random, rows made up.

    python benchmarks/gpu.py --out gpu                     # writes gpu/*.json; `make bench-gpu`
    python benchmarks/gpu.py --out gpu --model SMOLLM2 --data DATA      # with weights and rows, where they are there
    python benchmarks/gpu.py --device cpu --parts small --small random:1m --batch-size 8 --steps 1 --out cpu

In turn, until the time is over: `small`, SmolLM2-135M with 64 examples a step, ours and TRL's settings; `full`, the
same model with steps that fill the device; `larger`, a Llama of 1.2 billion parameters.
Model FLOPs utilisation: the FLOPs of products.py over seconds and the device's bf16 rate by its data sheet. Where TRL
or datasets is not installed, ours alone is measured. The same command goes on from what an earlier one measured.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import (
    Contender,
    Failed,
    Results,
    Work,
    contenders,
    has_trl,
    machine,
    run_child,
    table,
    take_turns,
    without_places,
)
from prepared import SYNTHETIC
from step import show, summary_of

PEAKS = {
    "B200": 2250e12, "H200": 989.4e12, "H100 PCIe": 756e12, "H100": 989.4e12, "A100": 312e12, "L40S": 362e12,
    "RTX 4090": 165.2e12,
}  # fmt: skip
"""FLOP/s of dense bf16 products with fp32 accumulation by data sheet, by a part of the device's name."""
PEERS = "ours,padded:{size},padding_free:{size},packed:4"
"""With TRL's settings: on a GPU a global batch fits into one micro-batch."""
PACKED_LENGTH = 1024
SUMMARY = 60
"""Seconds kept back for the product rates and the tables."""


def parts_of(given: argparse.Namespace) -> dict[str, Work]:
    small = Work(
        model=given.model or given.small, data=given.data or SYNTHETIC, steps=given.warm + given.steps,
        warm=given.warm, batch_size=given.batch_size, device=given.device, keep=False,
        bf16=given.precision == "bf16",
    )  # fmt: skip
    works = {
        "small": small,
        "full": replace(small, batch_size=8 * given.batch_size),
        "larger": replace(small, model=given.larger, data=SYNTHETIC, batch_size=4 * given.batch_size),
    }
    return {name: works[name] for name in given.parts.split(",")}


def measure(name: str, work: Work, given: argparse.Namespace, ends: float) -> bool:
    """One more run of each contender of a part, as far as there is time; whether all of them are there.

    A peer that fails on this machine is named and left out: the minutes are for the others.
    """
    results = results_of(name, work, given)
    done = True
    names = PEERS.format(size=work.batch_size) if has_trl() and name == "small" else "ours"
    for one in contenders(names, PACKED_LENGTH):
        turn = min(len(results.runs(one.label)) + 1, given.repeats)
        try:
            done &= take_turns(results, [one], work, turn, ends=ends)
        except Failed as error:
            print(error)
            done = False
    return done


def summarise(name: str, work: Work, given: argparse.Namespace) -> dict[str, Any] | None:
    """Medians, rates and utilisation of a part; None where not even ours has been run."""
    results = results_of(name, work, given)
    if not results.runs("ours"):
        return None
    products = results.content.get("products") or run_child(Contender(name="products"), work, "products.py")
    results.write(products=products)
    summary = summary_of(results, work, products)
    peak = given.peak_tflops * 1e12 if given.peak_tflops else peak_of(results.content["machine"]["gpu"])
    for one in summary["contenders"].values():
        one["mfu"] = one["flops_per_second"] / peak if peak else None
    results.write(summary=summary)
    print(f"\n{name}: {Path(work.model).name}, {work.batch_size} examples a step")
    show(summary, products)
    return summary


def results_of(name: str, work: Work, given: argparse.Namespace) -> Results:
    return Results(given.out / f"{name}.json", without_places(work), machine(work))


def peak_of(gpu: str | None) -> float | None:
    return next((peak for name, peak in PEAKS.items() if gpu and name in gpu), None)


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    parser.add_argument("--parts", default="small,full,larger", help="(default: %(default)s)")
    parser.add_argument("--model", help="a folder, in place of --small")
    parser.add_argument("--data", help="a folder of JSON lines files, for --model (default: rows made up)")
    parser.add_argument("--small", default="random:smollm2-135m", help="(default: %(default)s)")
    parser.add_argument("--larger", default="random:llama-1b", help="or a folder (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="of `small` (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="timed ones of a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.5, help="of all together (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--peak-tflops", type=float, help="bf16 rate of the device, where its name does not tell")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    ends = began + 60 * given.minutes - SUMMARY
    if not has_trl():
        print("TRL is skipped: trl and datasets are not installed here")
    parts = parts_of(given)
    # One run of each part before the second of any: what matters most is there when the time is over.
    for _ in range(given.repeats):
        done = [measure(name, work, given, ends) for name, work in parts.items()]
    lines = []
    for name, work in parts.items():
        summary = summarise(name, work, given)
        for label, one in (summary or {"contenders": {}})["contenders"].items():
            mfu = None if one["mfu"] is None else f"{one['mfu']:.1%}"
            memory = (one["peak_device"] or 0) / 2**30
            rates = (one["runs"], one["seconds_per_step"], one["tokens_per_second"], mfu, memory)
            lines.append((f"{name}, {label}", *rates))
    print("\n" + table(("", "runs", "s/step", "real tokens/s", "MFU", "peak device GiB"), lines))
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")
    if not all(done):
        print("Not every run was begun in the time given: the same command goes on")


if __name__ == "__main__":
    main()
