"""A very long run: memory, open files and the time of a replay stay where they are."""

from __future__ import annotations

import gc
import os
import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from msft.core.method import Method
from msft.core.search import Search
from msft.core.vocabulary import Brief, Mixture, Outcome, Plan, Segment, Task, Tokens
from msft.core.wire import brief_to_json
from msft.record.journal import Journal, read
from msft.run.loop import drive
from msft.testing.fake import FakeStore

TASKS = tuple(f"task {i}" for i in range(200))


def many_rollouts(count: int) -> Method:
    """Roll-outs of one segment each, every one from the last one's end."""

    def plan(brief: Brief) -> Plan:
        parent, mixture = 0, Mixture(tasks=brief.tasks)
        for number in range(1, count + 1):
            outcome = yield Segment(
                parent=parent, rollout=number, mixture=mixture, start=0, stop=5, epoch=float(number), score=brief.tasks
            )
            parent = outcome.snapshot
        return parent

    return Method(plan=plan, Params=type(None))


class Scorer:
    """An engine that gives every sub-dataset a new score each time, with all the digits of a float."""

    def __init__(self) -> None:
        self.store = FakeStore()

    def run(self, segment: Segment, number: int) -> Outcome:
        self.store.held.add(number)
        return outcome_of(number, segment.score)

    def base(self) -> Outcome:
        return outcome_of(0, TASKS)

    def test(self, snapshot: int) -> Outcome: ...  # type: ignore[empty-body]

    def export(self, snapshot: int, folder: Path) -> None: ...


def outcome_of(number: int, tasks: tuple[Task, ...]) -> Outcome:
    draw = random.Random(number)
    scores = {task: draw.random() for task in tasks}
    return Outcome(snapshot=number, scores=scores, reports={t: draw.random() for t in tasks}, tokens=Tokens(train=9))


def brief() -> Brief:
    return Brief(
        tasks=TASKS, sizes=(20,) * 200, validation_sizes=(9,) * 200, batch_size=8, seed=1, base=outcome_of(0, TASKS),
        horizon=1e6, eval_every=1.0, params=None,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield


def soak(place: Path, count: int, every: int) -> tuple[list[float], set[int]]:
    """MB held after each `every` segments, by the tracer of Python's memory; and the numbers of open files seen."""
    journal = Journal.create(place / "journal.jsonl", place / "sidecars", {"brief": brief_to_json(brief())})
    engine, held, opened = Scorer(), list[float](), set[int]()
    tracemalloc.start()

    def record(number: int, segment: Segment, outcome: Outcome) -> None:
        journal.segment(number, segment, outcome)
        if number % every == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0] / 1e6)
            opened.add(len(list(Path("/proc/self/fd").iterdir())))

    try:
        drive(Search(many_rollouts(count), brief()), engine, engine.store, record)
    finally:
        tracemalloc.stop()
    return held, opened


def replay(place: Path) -> float:
    """Seconds to read and check the journal, and to replay the search from it: the better of two, for a busy core."""
    spent = []
    for _ in range(2):
        gc.collect()
        began = time.process_time()
        transcript = read(place / "journal.jsonl", place / "sidecars")
        Search(many_rollouts(len(transcript.segments)), brief(), transcript.segments)
        spent.append(time.process_time() - began)
        del transcript
    return min(spent)


def test_memory_and_files_stay(tmp_path: Path) -> None:
    held, opened = soak(tmp_path, 400, 100)
    slope = (held[-1] - held[0]) / 300 * 1000
    # A kilobyte each: the segment, its mixture, and the outcome without scores.
    assert slope < 1.2, f"{slope:.2f} MB per 1,000 segments"
    assert len(opened) == 1
    assert replay(tmp_path) < 2


@pytest.mark.campaign
def test_ten_thousand_rollouts_of_two_hundred_sub_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held, opened = soak(tmp_path, 10_000, 1000)
    slope = (held[-1] - held[0]) / 9
    whole = replay(tmp_path)
    size = (tmp_path / "journal.jsonl").stat().st_size
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    half = replay(tmp_path)
    with capsys.disabled():
        print(f"\n{slope:.2f} MB per 1,000 segments; {sorted(opened)} open files; {size / 1e6:.0f} MB of journal")
        print(f"replayed in {whole:.1f} s, half of it in {half:.1f} s of processor time")
    assert slope < 1
    assert len(opened) == 1
    assert whole < 5
    assert whole < 2.6 * half
