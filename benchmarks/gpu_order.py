"""The order of gpu.py's parts; each may fail without the others, and the table is printed after each."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gpu_parts
import gpu_runs
from common import Work, machine
from gpu_parts import Bench
from gpu_table import report
from prepared import SYNTHETIC

PEAKS = {
    "B200": 2250e12, "H200": 989.4e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989.4e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165.2e12,
}  # fmt: skip
"""FLOP/s of dense bf16 products with fp32 accumulation by data sheet, by a part of the device's name."""
PARTS: dict[str, Callable[[Bench], None]] = {
    "small": gpu_parts.small, "larger": gpu_parts.larger, "search": gpu_runs.search,
    "generation": gpu_parts.generation, "kills": gpu_runs.kills, "full": gpu_parts.full,
    "determinism": gpu_runs.determinism, "study": gpu_runs.study,
}  # fmt: skip


def run_all(given: argparse.Namespace, scratch: Path, began: float, budgets: Mapping[str, float]) -> None:
    work = Work(
        model=given.small, data=SYNTHETIC, steps=given.warm + given.steps, warm=given.warm,
        batch_size=given.batch_size, device=given.device, keep=False, bf16=given.precision == "bf16",
        threads=given.threads,
    )  # fmt: skip
    bench = Bench(
        file=given.out / "gpu.json", work=work, scratch=scratch, ends=began + 60 * given.minutes,
        content=content_of(given, work), larger=given.larger, jobs=given.jobs, only=given.only,
    )  # fmt: skip
    for name in (name for name in PARTS if name in given.parts.split(",")):
        if time.perf_counter() >= bench.ends:
            bench.content["parts"][name] = {"status": "not begun"}
            bench.write()
            continue
        bench.begin(name, budgets[name])
        since = time.perf_counter()
        try:
            PARTS[name](bench)
        except Exception as error:  # the other parts are for other things
            bench.tell(status="failed", said=f"{type(error).__name__}: {str(error)[-600:]}")
        status = bench.told(name)["status"]
        bench.tell(status="done" if status == "running" else status, part_seconds=time.perf_counter() - since)
        text = report(bench.content)
        (given.out / "gpu.md").write_text(text + "\n", encoding="utf-8")
        print(f"\n{text}\n{(time.perf_counter() - began) / 60:.1f} minutes\n", flush=True)


def content_of(given: argparse.Namespace, work: Work) -> dict[str, Any]:
    """What the file holds already, if it is of the same machine and settings."""
    on = machine(work)
    settings = {name: getattr(given, name) for name in ("small", "larger", "batch_size", "precision")}
    settings |= {name: [float(n) if "." in n else int(n) for n in getattr(given, name).split(",")]
                 for name in ("search", "twice")}  # fmt: skip
    peak = given.peak_tflops * 1e12 if given.peak_tflops else peak_of(on["gpu"])
    made = {"machine": on, "settings": settings, "peak_flops": peak, "parts": {}}
    file = given.out / "gpu.json"
    if not file.exists():
        return made
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if any(known.get(key) != made[key] for key in ("machine", "settings")):
        raise SystemExit(f"{file} holds parts of another machine or other settings: name another --out, or delete it")
    return known


def peak_of(gpu: str | None) -> float | None:
    return next((peak for name, peak in PEAKS.items() if gpu and name in gpu), None)
