"""What the benchmarks share: the work that contenders are given, processes of their own, medians, tables, results.

A benchmark names a `Work` (model, rows, number of optimizer steps); `run_child` gives it to one contender in a process
of its own, so that no contender inherits another's memory, threads or caches.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msft.system.large_pages import environment_for

HERE = Path(__file__).parent
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "trl", "lm_eval", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Optimizer steps that every contender takes: the same model, the same rows in the same order."""

    model: str
    """A folder; or `random:NAME`, one of `model_configs.CONFIGS` with random weights, made where it is used."""
    data: str
    """A folder of JSON lines files, or one such file: `prompt`, `completion`, `split` in each row."""
    tasks: tuple[str, ...] = ()
    """Names of files without their ending; empty: all."""
    per_task: int | None = None
    """Training rows of each file; None: all."""
    steps: int
    warm: int = 1
    """The first steps, which are trained and not timed."""
    batch_size: int = 64
    """Examples of an optimizer step."""
    learning_rate: float = 1e-5
    max_length: int = 1024
    seed: int = 20
    device: str = "cpu"
    threads: int | None = None
    bf16: bool = True
    """Autocast over fp32 weights; False: fp32."""
    keep: bool = True
    """Whether the state after the last step is written to disk, outside of all timing: what peak memory includes."""

    @property
    def examples(self) -> int:
        return self.steps * self.batch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Who does the work, and with which settings. `trl_steps.py` says what each of TRL's is."""

    name: str
    """ours, padded, rebalanced, grouped, padding_free or packed; for scoring ours or evaluate."""
    micro: int = 8
    """TRL: rows of a micro-batch. Ours finds its own."""
    packed_length: int = 512
    """packed: tokens of a packed row."""

    @property
    def label(self) -> str:
        return self.name if self.is_ours else f"{self.name}:{self.micro}"

    @property
    def is_ours(self) -> bool:
        """`ours`, or with other settings `ours+mixed` and the like."""
        return self.name.partition("+")[0] == "ours"


def contenders(names: str, packed_length: int) -> list[Contender]:
    """From `ours,padded:8,packed:1`; a name without a number gets its default micro-batch."""
    found = []
    for name, _, micro in (part.partition(":") for part in names.split(",")):
        size = int(micro) if micro else 1 if name == "packed" else 8
        found.append(Contender(name=name, micro=size, packed_length=packed_length))
    return found


def rows_of(work: Work) -> list[dict[str, Any]]:
    """The training rows of the work, drawn in an order that only the seed decides: as many as its steps take.

    Where there are fewer rows than that, they come again.
    """
    rows = [row for rows in rows_by_task(work).values() for row in rows]
    order = np.random.default_rng(work.seed).permutation(len(rows))
    return [rows[order[number % len(rows)]] for number in range(work.examples)]


def rows_by_task(work: Work, split: str = "train") -> dict[str, list[dict[str, Any]]]:
    """The first `per_task` rows of the split in each file."""
    place = Path(work.data)
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    chosen = [file for file in files if not work.tasks or file.stem in work.tasks]
    if not chosen:
        raise SystemExit(f"{place}: no JSON lines file of the names {', '.join(work.tasks) or 'that are there'}")
    read = {file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in chosen}
    return {task: [row for row in rows if row["split"] == split][: work.per_task] for task, rows in read.items()}


def as_commands(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the large pages that msft's commands ask for."""
    return {"THP_MEM_ALLOC_ENABLE": "1", **(environment_for(environment) or environment)}


class Failed(SystemExit):
    """A contender's process ended with an error, which this carries."""


def run_child(
    contender: Contender, work: Work, script: str = "contenders.py", *, timeout: float | None = None, **more: Any
) -> dict[str, Any]:
    """What the contender measured, in a process of its own.

    Raises Failed, which ends the benchmark unless it is caught, and subprocess.TimeoutExpired where it takes longer
    than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        content = {"work": asdict(work), "contender": asdict(contender), "folder": folder, "result": str(result)} | more
        job.write_text(json.dumps(content), encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if work.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if work.threads:
            environment["OMP_NUM_THREADS"] = str(work.threads)
        if contender.is_ours:
            environment = as_commands(environment)
        command = [sys.executable, str(HERE / script), str(job)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
        if ended.returncode or not result.exists():
            raise Failed(f"{contender.label} failed ({ended.returncode}):\n{ended.stdout}{ended.stderr}")
        measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return measured


def has_trl() -> bool:
    """Whether the peers can be measured here."""
    return all(importlib.util.find_spec(name) is not None for name in ("trl", "datasets"))


def take_turns(
    results: Results, found: Sequence[Contender], work: Work, repeats: int, *, ends: float | None = None, **more: Any
) -> bool:
    """Runs the contenders in turn until each has been run `repeats` times; what the results already hold stays.

    `ends`: when all must be over (`time.perf_counter`); no run is begun that took longer before than there is left.
    Returns whether all were run.
    """
    for turn in range(repeats):
        for contender in found:
            if len(results.runs(contender.label)) > turn:
                continue
            began = time.perf_counter()
            left = None if ends is None else ends - began
            known = max((run["wall_seconds"] for run in results.runs(contender.label)), default=0.0)
            if left is not None and left <= known:
                return False
            try:
                measured = run_child(contender, work, timeout=left, **more)
            except subprocess.TimeoutExpired:
                print(f"{contender.label}: not done in the {left:.0f} s that were left", flush=True)
                return False
            results.add(contender.label, measured | {"wall_seconds": time.perf_counter() - began})
            print(f"{contender.label}, run {turn + 1} of {repeats}: {results.line(measured)}", flush=True)
    return True


class Results:
    """Runs by contender, written to a file after each, so that a benchmark can be run in pieces.

    `setup`: what must be the same for runs to be comparable; a file of another setup is refused.
    """

    def __init__(self, file: Path | None, setup: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        self.file = file
        setup = json.loads(json.dumps(setup))
        self.content: dict[str, Any] = {"setup": setup, "machine": dict(machine), "runs": {}}
        if file is not None and file.exists():
            known = json.loads(file.read_text(encoding="utf-8"))
            if (known.get("setup"), known.get("machine")) != (self.content["setup"], self.content["machine"]):
                raise SystemExit(f"{file} holds runs of another setup or machine: name another --out, or delete it")
            self.content = known

    def runs(self, label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.content["runs"].get(label, [])
        return found

    def add(self, label: str, measured: Mapping[str, Any]) -> None:
        self.content["runs"].setdefault(label, []).append(dict(measured))
        self.write()

    def write(self, **more: Any) -> None:
        self.content |= more
        if self.file is not None:
            draft = self.file.with_name(f".{self.file.name}.tmp")
            draft.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
            draft.replace(self.file)

    @staticmethod
    def line(measured: Mapping[str, Any]) -> str:
        seconds = measured["seconds"]
        return f"{statistics.median(seconds):.2f} s, median of {len(seconds)}"


def peak_memory() -> int:
    """Bytes: the most that this process has held of the host's memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(work: Work) -> dict[str, Any]:
    """Versions, threads and processors: what a number must not be quoted without."""
    import torch

    if work.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA device here")
    return {
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "threads": work.threads or torch.get_num_threads(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu_name(),
        "gpu": torch.cuda.get_device_name() if work.device == "cuda" else None,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Markdown; numbers with three significant digits and more where they are large."""
    cells = [[_cell(value) for value in line] for line in [head, *lines]]
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [cells[0], rule, *cells[1:]])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def add_options(parser: argparse.ArgumentParser, *, steps: int) -> None:
    """The options that name the work."""
    parser.add_argument(
        "--data", required=True, help="a folder of JSON lines files (prompt, completion, split), or one"
    )
    parser.add_argument("--tasks", default="", help="names of its files, with commas between (default: all)")
    parser.add_argument("--per-task", type=int, help="training rows of each file (default: all)")
    parser.add_argument("--model", help="a folder, or random:NAME (default: the quickstart's model)")
    parser.add_argument(
        "--steps", type=int, default=steps, help="timed optimizer steps of a run (default: %(default)s)"
    )
    parser.add_argument("--warm", type=int, default=1, help="steps before them (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="examples of a step (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of an example (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="constant (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: its own choice)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender, in turn (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON; an unfinished one is gone on with")


def work_of(given: argparse.Namespace, *, keep: bool) -> Work:
    """The work that the options name."""
    return Work(
        model=model_named(given.model),
        data=given.data,
        tasks=tuple(filter(None, given.tasks.split(","))),
        per_task=given.per_task,
        steps=given.warm + given.steps,
        warm=given.warm,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        max_length=given.max_length,
        device=given.device,
        threads=given.threads,
        bf16=given.precision == "bf16",
        keep=keep,
    )


def model_named(name: str | None) -> str:
    if name is not None:
        return name
    from msft.cli.quickstart import model_folder

    return str(model_folder())


def without_places(work: Work) -> dict[str, Any]:
    """The work as results name it: the same wherever model and data lie."""
    return asdict(replace(work, model=Path(work.model).name, data=Path(work.data).name))
