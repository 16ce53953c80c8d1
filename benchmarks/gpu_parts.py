"""The parts of gpu.py: each measures something, tells it as it goes, and may fail or be cut off without the others.

A part is a function of a `Bench`. It writes what it has found with `bench.tell`, which is in the JSON at once, and
watches `bench.left()`, the seconds until its own time or that of all is over.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common import HERE, Contender, Work, contenders

POLL = 0.2
TAIL = 600
"""Characters of a failed process's last words that are kept."""


@dataclass(kw_only=True)
class Bench:
    """What all parts share."""

    file: Path
    work: Work
    """Of the part `small`; the others vary it."""
    scratch: Path
    """Models, jobs, runs: not kept."""
    ends: float
    """When all must be over (`time.perf_counter`)."""
    content: dict[str, Any]
    larger: str
    jobs: int
    only: str | None = None
    """The contenders of every step part, in place of its own."""
    part: str = ""
    part_ends: float = field(default=0.0)

    def begin(self, part: str, seconds: float) -> None:
        self.part, self.part_ends = part, min(self.ends, time.perf_counter() + seconds)
        self.content["parts"][part] = {"status": "running"}
        self.write()

    def tell(self, **found: Any) -> None:
        self.content["parts"][self.part] |= found
        self.write()

    def told(self, part: str) -> dict[str, Any]:
        found: dict[str, Any] = self.content["parts"].get(part, {})
        return found

    def left(self) -> float:
        return self.part_ends - time.perf_counter()

    def write(self) -> None:
        draft = self.file.with_name(f".{self.file.name}.tmp")
        draft.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.file)

    def folder(self, name: str) -> Path:
        made = self.scratch / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def models(self, name: str) -> Path:
        """Where a random model of this name is made once."""
        return self.folder(f"models/{name.replace(':', '-').replace('/', '-')}")


def environment_of(work: Work) -> dict[str, str]:
    more = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if work.device == "cpu":
        more["CUDA_VISIBLE_DEVICES"] = ""
    if work.threads:
        more["OMP_NUM_THREADS"] = str(work.threads)
    return {**os.environ, **more}


def run(
    command: Sequence[str], work: Work, seconds: float, *, watch: Callable[[], bool] | None = None
) -> tuple[int, str]:
    """Runs a command in a process group of its own: its exit code, and the end of what it said.

    The group is killed after `seconds`, or as soon as `watch()` is true; the code is then -9.
    """
    ends = time.perf_counter() + seconds
    process = subprocess.Popen(
        command, env=environment_of(work), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, process_group=0,
    )  # fmt: skip
    try:
        while True:
            try:
                said = process.communicate(timeout=max(0.0, min(POLL, ends - time.perf_counter())))[0]
                return process.returncode, said[-TAIL:]
            except subprocess.TimeoutExpired:
                if time.perf_counter() >= ends or (watch is not None and watch()):
                    os.killpg(process.pid, signal.SIGKILL)
                    return -signal.SIGKILL, process.communicate()[0][-TAIL:]
    finally:
        if process.poll() is None:  # this process is being stopped
            os.killpg(process.pid, signal.SIGKILL)


def take_steps(bench: Bench, work: Work, names: str) -> None:
    """Ours and TRL's settings at one work, the first ones first; each is told as it ends."""
    waiting, lacks = runnable(contenders(bench.only or names, packed_length=1024), work)
    bench.tell(contenders={}, skipped=lacks, work=asdict(work))
    while waiting and bench.left() > 0:
        together = list(next(itertools.groupby(waiting, process_of))[1])
        waiting = _process(bench, work, together) + waiting[len(together) :]
    for one in waiting:
        bench.content["parts"][bench.part]["contenders"][one.label] = {"failed": "not begun: the time was over"}
    if waiting:
        bench.tell(status="cut off")


def process_of(one: Contender) -> str:
    """Contenders of one kind share a process: ours sets switches of torch, and Liger replaces functions of
    transformers, for all that comes after them."""
    return "ours" if one.name in ("ours", "products") else "liger" if "+liger" in one.name else "trl"


def runnable(chosen: Sequence[Contender], work: Work) -> tuple[list[Contender], list[str]]:
    """Those that can run here, without Liger's kernels where they cannot; and what is left out of them."""
    has = {name: importlib.util.find_spec(name) is not None for name in ("trl", "datasets", "liger_kernel")}
    lacks = [name for name, there in has.items() if not there]
    if work.device == "cpu" or not has["liger_kernel"]:
        chosen = [replace(one, name=one.name.replace("+liger", "")) for one in chosen]
    if not (has["trl"] and has["datasets"]):
        chosen = [one for one in chosen if process_of(one) == "ours"]
    return list({one.label: one for one in chosen}.values()), lacks


def _process(bench: Bench, work: Work, waiting: list[Contender]) -> list[Contender]:
    """One process for these contenders; those that it did not come to."""
    folder = bench.folder(f"{bench.part}/{time.monotonic_ns()}")
    job, result = folder / "job.json", folder / "result.jsonl"
    content = {
        "work": asdict(work), "contenders": [asdict(one) for one in waiting], "folder": str(folder),
        "models": str(bench.models(work.model)), "result": str(result),
    }  # fmt: skip
    job.write_text(json.dumps(content), encoding="utf-8")
    seen: list[str] = []

    def look() -> bool:
        lines = result.read_text(encoding="utf-8").split("\n")[:-1] if result.exists() else []
        for line in lines[len(seen) :]:
            found = json.loads(line)
            seen.append(found.pop("label"))
            if seen[-1].startswith("products"):
                bench.tell(products=found)
            else:
                bench.content["parts"][bench.part]["contenders"][seen[-1]] = found
                bench.write()
            print(f"{bench.part}, {seen[-1]}: {in_words(found)}", flush=True)
        return False

    code, said = run([sys.executable, str(HERE / "gpu_steps.py"), str(job)], work, bench.left(), watch=look)
    look()
    rest = waiting[len(seen) :]
    if rest and (code not in (0, 1) or not seen):
        why = "cut off: its time was over" if bench.left() <= 0 else f"the process ended ({code}): {last_line(said)}"
        bench.content["parts"][bench.part]["contenders"][rest[0].label] = {"failed": why}
        bench.write()
        print(f"{bench.part}, {rest[0].label}: {why}", flush=True)
        rest = rest[1:]
    return rest


def last_line(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


def in_words(found: Mapping[str, Any]) -> str:
    if "failed" in found:
        return f"FAILED: {found['failed']}"
    if "seconds_per_step" in found:
        return f"{1000 * found['seconds_per_step']:.1f} ms a step, {found['tokens_per_second']:,.0f} real tokens/s"
    return f"{found['flops_per_second'] / 1e12:.2f} TFLOP/s in the step's own products"


def generation(bench: Bench) -> None:
    """A new token of each of many rows: with a cache that grows, and with a recorded step."""
    work, out = bench.work, bench.folder("generation") / "found.json"
    tiny = ["--rows", "4", "--prompt", "12", "--new", "20", "--repeats", "1"] if work.device == "cpu" else []
    command = [sys.executable, str(HERE / "generation.py"), "--model", work.model, "--out", str(out), *tiny]
    code, said = run([*command, "--scratch", str(bench.models(work.model))], work, bench.left())
    if code != 0 or not out.exists():
        bench.tell(status="failed", said=last_line(said))
        return
    bench.tell(**json.loads(out.read_text(encoding="utf-8")))


def small(bench: Bench) -> None:
    size = bench.work.batch_size
    ways = f"padding_free+varlen+liger:{size},packed+varlen+liger:4,padded+liger:{size},padding_free+varlen:{size}"
    take_steps(bench, bench.work, f"ours,products,{ways},padded:{size},packed:4")


def full(bench: Bench) -> None:
    size = 8 * bench.work.batch_size
    work = replace(bench.work, batch_size=size, steps=bench.work.warm + max(1, bench.work.steps // 2))
    ways = "padding_free+varlen+liger:{0},packed+varlen+liger:16,padded+liger:{1}"
    take_steps(bench, work, f"ours,products,{ways.format(size // 2, size // 4)}")


def larger(bench: Bench) -> None:
    size = 4 * bench.work.batch_size
    work = replace(
        bench.work, model=bench.larger, batch_size=size, steps=bench.work.warm + max(1, bench.work.steps // 2)
    )
    ways = "padding_free+varlen+liger:{0},packed+varlen+liger:8,padded+liger:{1}"
    take_steps(bench, work, f"ours,products,{ways.format(size // 2, size // 4)}")
