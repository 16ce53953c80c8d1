"""The parts of gpu.py that are whole runs of `msft`, on a made-up job: a search, the same twice, kills, a study."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from gpu_parts import Bench, run
from precision import precision
from prepared import WORDS, source_of
from search import measured

from msft.record.run_folder import RunFolder
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story

TICKS = 0.25
"""Epochs between two evaluations."""
CALM = "calm"
"""The small run that is left alone."""
KILLS = 20
"""At most."""


def make_job(bench: Bench, name: str, output: str = "run") -> Path:
    """A configuration, `name` of the settings, with its rows; jobs of one name have the same rows.

    Every other set asks for one of four options, the others have a loss.
    """
    sets, train, validation, epochs, budget = bench.content["settings"][name]
    folder = bench.folder(name)
    source = source_of(bench.work, bench.models(bench.work.model))
    datasets = []
    for number in range(sets):
        choice, file = number % 2 == 1, folder / f"set{number}.jsonl"
        rows = made_up(train, "train", number, choice) + made_up(validation, "validation", 1000 + number, choice)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        columns = {"prompt": "prompt", "completion": "completion"}
        datasets.append(
            {
                "id": file.stem, "path": str(file), "where": {"split": "train"},
                "columns": columns | ({"choices": "choices", "answer": "answer"} if choice else {}),
                "template": {"prompt": "{prompt}", "completion": "{completion}"},
                "validation": {"where": {"split": "validation"}},
                "scorer": {"name": "choice", "of": "text"} if choice else {"name": "loss"},
            }
        )  # fmt: skip
    content = {
        "model": {"name_or_path": source.name_or_path, **precision(bench.work.bf16)},
        "method": {"name": "msft", "max_epochs": epochs, "budget": budget, "eval_every": TICKS},
        "datasets": datasets,
        "data": {"max_length": bench.work.max_length, "leaks": "warn", "seed": bench.work.seed},
        "training": {"batch_size": bench.work.batch_size, "learning_rate": 3e-4},
        "output": str(folder / output),
    }
    config = folder / f"{output}.yaml"
    config.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return config


def made_up(count: int, split: str, seed: int, choice: bool) -> list[dict[str, Any]]:
    """Rows of words in the lengths of prepared.synthetic; each set has words of its own, so that there is something to
    learn."""
    draw = np.random.default_rng(seed)
    first = 3 + seed % 1000 * 300 % (WORDS - 303)

    def words(number: int) -> str:
        return " ".join(f"w{word}" for word in draw.integers(first, first + 300, number))

    rows = []
    for _ in range(count):
        given = int(np.clip(draw.lognormal(4.05, 0.5), 8, 400))
        learned = int(np.clip(draw.lognormal(3.8, 0.6), 4, 300)) if not choice and draw.random() < 1 / 3 else 2
        row: dict[str, Any] = {"prompt": words(given), "split": split}
        if choice:
            options = [f" {words(2)}" for _ in range(4)]
            right = int(draw.integers(4))
            row |= {"choices": options, "answer": right, "completion": options[right]}
        else:
            row["completion"] = f" {words(learned)}"
        rows.append(row)
    return rows


def msft(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "msft", *arguments]


def search(bench: Bench) -> None:
    """A whole search of twelve tasks, and where its seconds went."""
    config = make_job(bench, "search")
    began = time.perf_counter()
    code, said = run(msft("train", str(config)), bench.work, bench.left())
    wall = time.perf_counter() - began
    folder = RunFolder(config.parent / "run")
    if folder.journal.exists():
        story = read_story(folder)
        found = measured(story)
        del found["rows"], found["left"]
        bench.tell(wall_seconds=wall, **found, evaluation=evaluation_of(story))
    ended(bench, code, said)


def ended(bench: Bench, code: int, said: str) -> bool:
    """Whether a run of msft came to its end; else it is told how it ended, and what it said last."""
    if code:
        bench.tell(status="cut off" if code == -9 else "failed", code=code, said=said)
    return not code


def evaluation_of(story: Story) -> dict[str, Any] | None:
    """Seconds of a scoring of all validation items, beside the training that it follows; medians of the segments.

    A segment after an exclusion scores fewer sets: those of the first roll-out count, which score all.
    """
    entries = {entry["number"]: entry["seconds"] for entry in story.timings if entry.get("kind") == "segment"}
    first = [entries[n] for n, (s, _) in enumerate(story.segments, 1) if n in entries and s.trains and s.rollout == 1]
    if not first:
        return None

    def median(kind: str) -> float:
        return statistics.median(sum(v for name, v in one.items() if name.startswith(kind)) for one in first)

    return {"segments": len(first), **{kind: median(kind) for kind in ("eval", "train", "snapshot", "record")}}


def determinism(bench: Bench) -> None:
    """The same small run twice: whether the journals are the same, and else where they part."""
    first, second = left_alone(bench, CALM), left_alone(bench, "again")
    if first is None or second is None:
        return
    parts = next((n for n, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    same = first == second
    bench.tell(same=same, records=[len(first), len(second)], first_difference=None if same else parts)


def left_alone(bench: Bench, name: str) -> list[bytes] | None:
    """The records of a small run that nothing disturbs; None if it did not come to its end."""
    config = make_job(bench, "twice", name)
    folder = RunFolder(config.parent / name)
    if not (folder.path / "final").exists():
        began = time.perf_counter()
        code, said = run(msft("train", str(config)), bench.work, bench.left())
        wall = time.perf_counter() - began
        if not ended(bench, code, said):
            return None
        spent = seconds_of(read_story(folder))
        working, known = spent.total - spent.groups["start"], bench.told(bench.part).get("wall_seconds", [])
        bench.tell(wall_seconds=[*known, wall], start=spent.groups["start"], working_seconds=working)
    return folder.journal.read_bytes().splitlines()


def kills(bench: Bench) -> None:
    """Kills small runs at random moments and resumes them, `jobs` at a time, until there were KILLS or time is over:
    refusals, and whether the record is the same as that of the run that was left alone."""
    if left_alone(bench, CALM) is None:
        return
    expected = RunFolder(bench.folder("twice") / CALM).journal.read_bytes()
    done: dict[str, Any] = {"kills": 0, "resumed": 0, "finished": 0, "same": 0, "refusals": []}
    numbers, changing = itertools.count(1), Lock()

    def one_after_another(_: int) -> None:
        while done["kills"] < KILLS and bench.left() > 0:
            with changing:
                config = make_job(bench, "twice", f"killed-{next(numbers)}")
            folder = RunFolder(config.with_suffix(""))
            if _finishes(bench, config, folder, done, changing):
                with changing:
                    done["finished"] += 1
                    done["same"] += folder.journal.read_bytes() == expected
            with changing:
                bench.tell(**done)

    with ThreadPoolExecutor(bench.jobs) as pool:
        list(pool.map(one_after_another, range(bench.jobs)))


def _finishes(bench: Bench, config: Path, folder: RunFolder, done: dict[str, Any], changing: Lock) -> bool:
    """Starts a run again and again until it ends by itself; whether it did, and was not refused."""
    draw = random.Random()  # moments are by the clock, so no seed would repeat them
    working = bench.told("determinism").get("working_seconds") or bench.told("kills")["working_seconds"]
    while bench.left() > 0:
        again = folder.journal.exists()
        size, due = length_of(folder.journal), None
        wait = draw.uniform(0.0, working / 4)

        def moment(size: int = size, wait: float = wait) -> bool:
            """A while after this process wrote its first record, so that the start is not all that is ever killed."""
            nonlocal due
            if due is None and length_of(folder.journal) > size:
                due = time.perf_counter() + wait
            return done["kills"] < KILLS and due is not None and time.perf_counter() >= due

        code, said = run(
            msft("train", str(config), *(["--resume"] if again else [])), bench.work, bench.left(), watch=moment
        )
        with changing:
            if code not in (0, -9):
                done["refusals"].append({"code": code, "after_kills": done["kills"], "said": said})
                return False
            if code == -9 and bench.left() <= 0:
                return False
            done["resumed"] += again
            if code == 0:
                return True
            done["kills"] += 1
            bench.tell(**done)
    return False


def length_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def study(bench: Bench) -> None:
    """`msft compare` with several runs at a time: runs an hour, their starts included."""
    config = make_job(bench, "twice", "study")
    output, began = config.parent / "compare", time.perf_counter()
    jobs = bench.jobs
    command = msft(
        "compare",
        str(config),
        "--methods",
        "sft,msft",
        "--seeds",
        str(jobs),
        "--jobs",
        str(jobs),
        "--output",
        str(output),
    )
    code, said = run(command, bench.work, bench.left())
    wall = time.perf_counter() - began
    done = len(list(output.rglob("summary.json")))
    bench.tell(jobs=jobs, runs=2 * jobs, ended=done, wall_seconds=wall, runs_an_hour=3600 * done / wall)
    ended(bench, code, said)
