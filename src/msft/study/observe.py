"""Measures what a finished run did not record: repeats its segments, which must give the same training losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from msft.core.errors import Diverged
from msft.core.vocabulary import ROOT, Snapshot
from msft.engine.torch_engine import TorchEngine
from msft.report.story import Story
from msft.run.job import Job
from msft.run.open_store import SNAPSHOT_MEMORY
from msft.snapshots.store import Store
from msft.system.host import host_memory

T = TypeVar("T")


def observe(
    job: Job,
    story: Story,
    measure: Callable[[TorchEngine, Snapshot], T],
    wanted: Callable[[Snapshot], bool] = lambda snapshot: True,
) -> dict[Snapshot, T]:
    """`measure(engine, snapshot)` for the base model and for every snapshot of a run that is `wanted`.

    Evaluations are not repeated: the cost is the run's training and the measurements. Raises Diverged if a training
    loss is not bit-identical to the recorded one: the measurement would then be of a different run.
    """
    memory = int(SNAPSHOT_MEMORY * host_memory().available)
    # Beside the run, whose disk has room for snapshots: the system's folder for such files may lie in memory.
    with (
        TemporaryDirectory(dir=story.folder.path, prefix=".observe-") as folder,
        Store(Path(folder), memory_bytes=memory) as store,
    ):
        engine = TorchEngine(job.model, job.data, replace(job.settings, durable="rollout"), store)
        found = {ROOT: measure(engine, ROOT)} if wanted(ROOT) else {}
        for number, (segment, recorded) in enumerate(story.segments, 1):
            if segment.makes:
                outcome = engine.run(replace(segment, score=(), probes=frozenset()), number)
                if outcome.train_loss != recorded.train_loss:
                    changed = f"train_loss was {recorded.train_loss}, is now {outcome.train_loss}"
                    raise Diverged(f"segment {number}, run again,", [changed])
                if wanted(number):
                    found[number] = measure(engine, number)
            if number < len(story.segments):
                after = story.segments[number][0]
                store.prune((after.keep | after.sources) - {ROOT})
        return found
