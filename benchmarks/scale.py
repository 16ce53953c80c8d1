"""What grows with a job: with its sub-datasets, with its rows, with its model.

    python benchmarks/scale.py --out scale.json
    python benchmarks/scale.py --parts tasks,rows --rows 1000,10000      # a part of it, smaller

tasks: a whole mSFT search over made-up curves, journal included: seconds per segment of everything that is not the
engine. rows: reading, checking and tokenising a file; an epoch's order; cutting a step into micro-batches. models: a
training step of random Llama models against its FLOPs, medians of runs in processes of their own.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Contender, Results, Work, machine, run_child, table
from prepared import SYNTHETIC, synthetic
from rows import train_tokenizer, write_rows

from msft.core.clock import Clock, per_epoch
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Segment, Snapshot, Task
from msft.core.wire import brief_to_json
from msft.data.order import Cursor, Order
from msft.forward.planner import deal
from msft.methods import METHODS
from msft.record.journal import Journal
from msft.run.loop import drive

PARTS = "tasks,rows,models"
PER_TASK, BATCH, HORIZON, EVAL_EVERY = 200, 64, 10.0, 0.25
STEPS_OF_ORDER = 20
"""Steps whose batches are timed, beside the first, which makes the epoch."""


class Spent:
    """Seconds by name: of the wall clock, and of this process's CPU, which other work on the machine does not touch."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu


class Curves:
    """An engine that trains nothing: each sub-dataset's score rises to its own peak in epochs, then falls. And a store
    that holds its snapshots."""

    def __init__(self, peaks: dict[Task, float], sizes: dict[Task, int], spent: Spent) -> None:
        self.peaks, self.sizes, self.spent = peaks, sizes, spent
        self.clock = Clock(sizes, BATCH, EVAL_EVERY)
        self.held: dict[Snapshot, dict[Task, float]] = {ROOT: dict.fromkeys(sizes, 0.0)}
        self.most = 0

    def base(self) -> Outcome:
        return self._outcome(ROOT, tuple(self.sizes))

    def run(self, segment: Segment, number: int) -> Outcome:
        with self.spent.on("engine"):
            if not segment.trains:
                return self._outcome(segment.parent, segment.score)
            seen, counts = dict(self.held[segment.parent]), per_epoch(segment.mixture, self.sizes)
            epochs = self.clock.epochs(segment.mixture, segment.stop - segment.start)
            for task, count in counts.items():
                seen[task] += epochs * count / self.sizes[task]
            self.held[number] = seen
            self.most = max(self.most, len(self.held) - 1)
            return self._outcome(number, segment.score)

    def test(self, snapshot: Snapshot) -> Outcome:
        return self._outcome(snapshot, tuple(self.sizes))

    def export(self, snapshot: Snapshot, folder: Path) -> None:
        raise AssertionError("a search alone hands nothing over")

    @property
    def durable(self) -> Collection[Snapshot]:
        return self.held

    def has(self, snapshot: Snapshot) -> bool:
        return snapshot in self.held

    def persist(self, snapshots: Collection[Snapshot]) -> None: ...

    def finish(self) -> None:
        pass

    def prune(self, keep: Collection[Snapshot], durable: Collection[Snapshot] = ()) -> None:
        self.held = {number: seen for number, seen in self.held.items() if number == ROOT or number in keep}

    def _outcome(self, snapshot: Snapshot, tasks: tuple[Task, ...]) -> Outcome:
        seen = self.held[snapshot]
        scores = {task: 0.8 - 0.1 * abs(math.log((seen[task] + 0.25) / (self.peaks[task] + 0.25))) for task in tasks}
        return Outcome(snapshot=snapshot, scores=scores, reports=scores)


def of_tasks(count: int) -> dict[str, Any]:
    """A search over so many sub-datasets, whose peaks lie spread over 0.5 to 8 epochs."""
    tasks = tuple(f"task{number:04}" for number in range(count))
    sizes, spent = dict.fromkeys(tasks, PER_TASK), Spent()
    peaks = {task: 0.5 + 7.5 * number / max(1, count - 1) for number, task in enumerate(tasks)}
    engine, method = Curves(peaks, sizes, spent), METHODS["msft"]
    brief = Brief(
        tasks=tasks, sizes=tuple(sizes.values()), validation_sizes=(100,) * count, batch_size=BATCH, seed=20,
        base=engine.base(), horizon=HORIZON, eval_every=EVAL_EVERY, params=method.Params(),
    )  # fmt: skip
    segments: list[Segment] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        journal = Journal.create(place / "journal.jsonl", place / "items", {"brief": brief_to_json(brief)})

        def record(number: int, segment: Segment, outcome: Outcome) -> None:
            segments.append(segment)
            with spent.on("journal"):
                journal.segment(number, segment, outcome)

        with spent.on("all"):
            drive(Search(method, brief), engine, engine, record)
        size = (place / "journal.jsonl").stat().st_size
    others = {kind: times["all"] - times["engine"] for kind, times in (("wall", spent.wall), ("cpu", spent.cpu))}
    return {
        "tasks": count,
        "segments": len(segments),
        "rollouts": max(segment.rollout for segment in segments),
        "wall_seconds_per_segment": others["wall"] / len(segments),
        "cpu_seconds_per_segment": others["cpu"] / len(segments),
        "journal_wall_seconds_per_segment": spent.wall["journal"] / len(segments),
        "journal_bytes": size,
        "most_snapshots": engine.most,
    }


def of_rows(count: int) -> dict[str, Any]:
    """Preparing so many rows of 200 bytes, and what their order and their micro-batches cost a step."""
    spent = Spent()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, count)
        train_tokenizer(file)
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        try:
            _prepare(file, spent)
        finally:
            os.environ.pop("XDG_CACHE_HOME") if before is None else os.environ.update(XDG_CACHE_HOME=before)
    order, mixture, cursor = Order(20, {"rows": count}, BATCH), Mixture(tasks=("rows",)), Cursor()
    with spent.on("epoch"):
        _, cursor = order.batch(1, mixture, cursor)
    steps = min(STEPS_OF_ORDER, math.ceil(count / BATCH) - 1)
    with spent.on("order"):
        for _ in range(steps):
            _, cursor = order.batch(1, mixture, cursor)
    lengths = [len(example) for example in synthetic(BATCH, 20)]
    with spent.on("planning"):
        for _ in range(STEPS_OF_ORDER):
            deal(lengths, 1024, 1)
    return {
        "rows": count,
        "prepare_wall_seconds": spent.wall["prepare"],
        "prepare_cpu_seconds": spent.cpu["prepare"],
        "again_cpu_seconds": spent.cpu["again"],
        "epoch_cpu_seconds": spent.cpu["epoch"],
        "order_cpu_seconds_per_step": spent.cpu["order"] / max(1, steps),
        "planning_cpu_seconds_per_step": spent.cpu["planning"] / STEPS_OF_ORDER,
    }


def _prepare(file: Path, spent: Spent) -> None:
    from transformers import AutoTokenizer

    from msft.config.schema import Config
    from msft.data.load import load_tasks

    held_out = max(1, min(1000, sum(1 for _ in file.open("rb")) // 10))
    dataset = {"id": "rows", "path": str(file), "validation": {"max_samples": held_out}}
    config = Config.model_validate({"model": {"name_or_path": "none"}, "datasets": [dataset], "output": "none"})
    tokenizer = AutoTokenizer.from_pretrained(file.parent / "tokenizer")
    for name in ("prepare", "again"):
        with spent.on(name):
            load_tasks(config, tokenizer)


def of_model(name: str, work: Work, repeats: int) -> dict[str, Any]:
    """A step of a random model of this shape, on made-up tokens."""
    runs = [run_child(Contender(name="ours"), work) for _ in range(repeats)]
    products = run_child(Contender(name="products"), work, "products.py")
    seconds = statistics.median(statistics.median(run["seconds"]) for run in runs)
    flops = sum(products["flops_per_step"].values())
    return {
        "model": name,
        "parameters": products["parameters"],
        "tokens_per_step": products["tokens_per_step"],
        "flops_per_step": flops,
        "seconds_per_step": seconds,
        "flops_per_second": flops / seconds,
        "product_rate_share": sum(products["product_seconds_per_step"].values()) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=PARTS, help="(default: %(default)s)")
    parser.add_argument("--tasks", default="2,5,10,20,50,100,200", help="sub-datasets (default: %(default)s)")
    parser.add_argument("--rows", default="1000,10000,100000", help="(default: %(default)s)")
    parser.add_argument("--models", default="1m,5m,15m,50m", help="shapes in prepared.py (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a run of a model (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="examples of those (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each model (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: its own choice)")
    parser.add_argument("--out", type=Path, help="JSON")
    given = parser.parse_args()
    work = Work(
        model="", data=SYNTHETIC, steps=1 + given.steps, batch_size=given.batch_size, device=given.device,
        threads=given.threads, bf16=given.precision == "bf16", keep=False,
    )  # fmt: skip
    setup = {name: value for name, value in vars(given).items() if name not in ("out", "parts", "repeats")}
    results = Results(given.out, setup, machine(work))

    def part(name: str, lines: Iterator[dict[str, Any]]) -> None:
        if name in given.parts.split(","):
            results.write(**{name: (found := list(lines))})
            print(f"{name}\n{table(list(found[0]), [list(line.values()) for line in found])}\n", flush=True)

    part("tasks", (of_tasks(int(count)) for count in given.tasks.split(",")))
    part("rows", (of_rows(int(count)) for count in given.rows.split(",")))
    models = given.models.split(",")
    part("models", (of_model(name, replace(work, model=f"random:{name}"), given.repeats) for name in models))


if __name__ == "__main__":
    main()
