"""What `snapshots.max` saves and what it costs: disk and training again, on searches whose curves are simulated.

    python benchmarks/retention.py --out retention.json      # N = 12, under a minute
    python benchmarks/retention.py --run runs/a runs/b       # real runs, from their summaries

Curves as design 1.1 has them: twelve sub-datasets of 1,800 examples, peaks spread over 0.5 to 8 epochs, binomial noise
of the validation items; batch 64, ticks every quarter of an epoch; a full look costs a fifth of its tick's training.
Everything else is real: methods, the loop, what is held and what is trained again. Disk is in units of what plain
fine-tuning that keeps its tip and its best holds (two snapshots); training again as a share of the whole search's
compute, scoring and itself included. --seeds shortens it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msft.core.retention import replayed
from msft.core.vocabulary import Brief, Outcome, Segment, Snapshot
from msft.methods import METHODS, outlook_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from msft.testing import conformance
from msft.testing.fake import Curve, FakeEngine

TASKS, SIZE, BATCH = 12, 1800, 64
LOOK = 0.2
"""Compute of scoring all sub-datasets once, against training the whole mixture from one tick to the next."""
LIMITS = (None, 4, 3, 2, 1)


def searched(name: str, preset: str, seed: int, items: int) -> tuple[Brief, list[tuple[Segment, Outcome]], Snapshot]:
    """One search: its brief, its record, its answer."""
    draw = random.Random(seed)
    curves = [
        Curve(
            peak=0.5 + 7.5 * (i + draw.random()) / TASKS,
            base=draw.uniform(0.2, 0.4),
            top=draw.uniform(0.5, 0.8),
            fall=draw.uniform(0.01, 0.06),
        )
        for i in range(TASKS)
    ]
    draw.shuffle(curves)
    named = {f"t{i:02}": curve for i, curve in enumerate(curves)}
    engine = FakeEngine(named, dict.fromkeys(named, SIZE), batch_size=BATCH, items=items)
    method = METHODS[name]
    brief = conformance.brief_for(method, engine, preset)
    answer, journal = conformance.run(method, brief, engine)
    return brief, journal, answer


def measured(
    brief: Brief, journal: Sequence[tuple[Segment, Outcome]], answer: Snapshot, limit: int | None, name: str
) -> list[float]:
    """Mean disk, peak disk (in two snapshots), and the share of compute that is training again."""
    _, settled = replayed(brief, journal, None, answer, ((1, limit),), outlook_of(name, brief).window)
    steps = {number: segment.stop - segment.start for number, (segment, _) in enumerate(journal, 1)}
    tick = brief.eval_every * math.ceil(sum(brief.sizes) / brief.batch_size)
    spans: list[tuple[int, int, bool]] = []
    held = 0
    for (segment, _), after in zip(journal, settled, strict=True):
        spans.append((held, segment.stop - segment.start, segment.trains))
        spans += [(len(beside), steps[number], True) for number, beside in after.again]
        held = len(after.held)
    total = sum(count for _, count, _ in spans)
    again = sum(steps[number] for after in settled for number, _ in after.again)
    scored = LOOK * tick * sum(len(segment.score) for segment, _ in journal) / len(brief.tasks)
    mean = sum(kept * count for kept, count, _ in spans) / total
    return [mean / 2, max(kept + trains for kept, _, trains in spans) / 2, again / (total + scored)]


def table(cases: Sequence[tuple[str, str]], seeds: int, items: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    print("| search | snapshots.max | mean disk | peak disk | trained again | at most in one search |")
    print("|---|---|---|---|---|---|")
    for name, preset in cases:
        runs = [searched(name, preset, seed, count) for count in items for seed in range(seeds)]
        for limit in LIMITS:
            numbers = [measured(*run, limit, name) for run in runs]
            mean, _, again = (statistics.mean(column) for column in zip(*numbers, strict=True))
            peak = max(peak for _, peak, _ in numbers)
            most = max(share for _, _, share in numbers)
            rows.append({"method": name, "preset": preset, "max": limit, "searches": len(runs), "mean": mean,
                         "peak": peak, "again": again, "again_most": most})  # fmt: skip
            print(f"| {name}, {preset} | {limit or 'null'} | {mean:.2f} | {peak:.1f} | {again:.1%} | {most:.1%} |")
    return rows


def of_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The same numbers of real runs."""
    rows = []
    print("| run | mean disk | peak disk | trained again, of FLOPs | of seconds |")
    print("|---|---|---|---|---|")
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        disk, flops, seconds = summary["disk"], summary["flops"], summary["seconds"]
        row = {
            "run": folder.name,
            "mean": disk["mean_bytes"] / disk["sft_bytes"],
            "peak": disk["peak_bytes"] / disk["sft_bytes"],
            "again": flops["recompute"] / sum(flops.values()),
            "again_seconds": seconds["recompute"] / seconds["total"],
        }
        rows.append(row)
        print(f"| {row['run']} | {row['mean']:.2f} | {row['peak']:.1f} | {row['again']:.1%} "
              f"| {row['again_seconds']:.1%} |")  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="searches for each number of items")
    parser.add_argument("--items", type=int, nargs="+", default=[60, 300], help="validation items per sub-dataset")
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="folders of finished runs, in place of these")
    parser.add_argument("--out", type=Path, help="a JSON file")
    asked = parser.parse_args()
    cases = [("msft", "robust"), ("msft", "release"), ("sro", "default"), ("placebo", "robust")]
    rows = of_runs(asked.run) if asked.run else table(cases, asked.seeds, asked.items)
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
