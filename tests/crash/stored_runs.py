"""Whole runs of the real trainer in milliseconds: real store, journal, loop and hand-over around the fake engine.

Only the model is fake: a few numbers, kept as tensors by the real store. Nothing is really synced: whether a sync is
there at the right place is what the power-loss model asks, and a kill cannot tell.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import torch
from tiny_engine import tiny_data
from torch import nn

from msft.config.schema import Config
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot, Task
from msft.data.order import Cursor
from msft.engine.progress import ScoreInfo, StepInfo
from msft.model.open import OpenModel
from msft.record.run_folder import RunFolder
from msft.run import session
from msft.run.attempt import MakeEngine
from msft.run.job import Job, model_source
from msft.run.sampling import Asked
from msft.scoring.sample_outputs import Sample
from msft.snapshots.state import State
from msft.snapshots.store import Store
from msft.system import files
from msft.system.files import Operation
from msft.testing.fake import Curve, FakeEngine

CURVES = {"one": Curve(peak=0.8), "three": Curve(peak=2.0), "two": Curve(peak=1.4)}
METHODS: dict[str, dict[str, Any]] = {
    "tick": {"name": "msft", "max_epochs": 3, "budget": 1.5, "eval_every": 0.5, "smooth": 1, "leave_within": 0},
    "rollout": {"name": "msft", "max_epochs": 3, "budget": 1.5, "eval_every": 0.5, "smooth": 1, "leave_within": 0},
    "losses": {"name": "ies", "max_epochs": 7, "eval_every": 1},
}
"""By what is special about each: every snapshot durable, only those of roll-outs' ends, sidecar files."""


class Kill(BaseException):
    """The process is gone: nothing of ours may catch this."""


class _Kept(dict[Snapshot, dict[Task, float]]):
    """The states of a fake engine, in a real store."""

    def __init__(self, root: dict[Task, float], store: Store) -> None:
        super().__init__({ROOT: root})
        self.store = store

    def __missing__(self, snapshot: Snapshot) -> dict[Task, float]:
        tensors = self.store.get(snapshot).tensors
        return {name.removeprefix("weight/"): float(x) for name, x in tensors.items() if name != "rate"}


class StoredEngine(FakeEngine):
    """The fake engine with its states in the real store."""

    parameters, model_bytes, fingerprint, notes, gpu = 1000, 4000, "fake", (), MappingProxyType({})

    def __init__(self, job: Job, store: Store, on_step: Callable[[StepInfo | ScoreInfo], None]) -> None:
        sizes, settings = {task: len(part.train) for task, part in job.data.items()}, job.settings
        super().__init__(CURVES, sizes, settings.batch_size, items=3)
        self.settings, self.on_step, self.kept = settings, on_step, store
        self.states = _Kept(dict.fromkeys(sizes, 0.0), store)
        self.store = store  # type: ignore[assignment]
        self.learning_rates = [(1, settings.learning_rate)]

    def state(self) -> State:
        return State(tensors={"weight/one": torch.arange(6.0)})

    def run(self, segment: Segment, number: int) -> Outcome:
        for step in range(segment.start, segment.stop):
            info = StepInfo(rollout=1, step=step + 1, stop=segment.stop, loss=1.0, learning_rate=0.1, tokens=9)
            self.on_step(info)
        outcome = super().run(segment, number)
        if self.settings.durable == "tick":
            self.kept.finish()
        return outcome

    def keep(self, number: int, segment: Segment, exposure: dict[Task, float]) -> None:
        before = (
            self.kept.get(segment.parent).tensors["rate"] if segment.parent else torch.zeros((), dtype=torch.double)
        )
        rate = [rate for since, rate in self.learning_rates if since <= number][-1]
        tensors = {f"weight/{task}": torch.tensor(x, dtype=torch.double) for task, x in exposure.items()}
        tensors["rate"] = before + rate * (segment.stop - segment.start)
        state = State(tensors=tensors, cursor=self.cursors[number])
        self.kept.put(number, state, self.settings.durable == "tick")

    def cursor(self, snapshot: Snapshot) -> Cursor:
        return self.kept.get(snapshot).cursor if snapshot else Cursor()

    def sample(self, snapshot: Snapshot, asked: Asked) -> dict[Task, list[Sample]]:
        said = str(float(self.kept.get(snapshot).tensors["rate"]) if snapshot else 0.0)
        sample = Sample(prompt="?", reference="!", output=said, probability=None)
        return {task: [sample] * len(items) for task, (items, _) in asked.items()}

    def export(self, snapshot: Snapshot, folder: Path) -> None:
        super().export(snapshot, folder)
        (folder / "rate.txt").write_text(str(float(self.kept.get(snapshot).tensors["rate"]) if snapshot else 0.0))


@dataclass
class Notes:
    """Who watches: keeps what was said, but for the warning that these jobs have few validation items."""

    said: list[str] = field(default_factory=list)
    began: list[int] = field(default_factory=list)
    told: int = 0
    """Segments that the trainer called journaled."""
    on_step: Callable[[Any], None] = lambda info: None

    def begin(self, brief: Brief, method: str) -> None: ...

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None:
        self.told = len(past)

    def segment(self, number: int, segment: Segment) -> None:
        self.began.append(number)

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        self.on_step(info)

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        self.told = number

    def note(self, text: str) -> None:
        if not text.startswith("Too few validation items"):
            self.said.append(text)


def config_of(kind: str, output: Path, method: Mapping[str, Any] | None = None, **training: Any) -> Config:
    """A job of this kind; `method`: in place of the kind's own parameters."""
    datasets = [{"id": task, "path": f"{task}.jsonl"} for task in CURVES]
    return Config.model_validate(
        {
            "model": {"name_or_path": "fake"}, "method": {**METHODS[kind], **(method or {})}, "datasets": datasets,
            "snapshots": {"durable": "rollout" if kind == "rollout" else "tick"},
            "training": {"batch_size": 4, "learning_rate": 0.01, **training}, "output": str(output),
        }
    )  # fmt: skip


_schedules: list[Callable[..., Executor]] = [ThreadPoolExecutor]
"""What runs the jobs of the thread that writes snapshots; the last one counts."""


@contextmanager
def unsynced(schedule: Callable[..., Executor] = ThreadPoolExecutor) -> Iterator[None]:
    """No sync reaches the disk; `schedule` runs the jobs of the thread that writes snapshots."""
    _schedules.append(schedule)
    with patch.object(os, "fsync", lambda descriptor: None):
        yield
    _schedules.pop()


def train(config: Config, notes: Notes, *, engine: MakeEngine = StoredEngine, **arguments: Any) -> dict[str, Any]:
    """`session.train` around the fake engine: no model is there to be found, checked or loaded."""
    model = OpenModel(model_source(config), tokenizer=None, skeleton=nn.Linear(3, 2))  # type: ignore[arg-type]
    job = Job(config, model, tiny_data())
    store = partial(Store, executor=_schedules[-1])
    return session.train(config, notes, job=job, engine=engine, store=store, **arguments)


def run(
    config: Config,
    *,
    observer: Callable[[Operation], None] | None = None,
    allow: Collection[str] = (),
    engine: MakeEngine = StoredEngine,
) -> tuple[dict[str, Any], Notes]:
    """Starts a run or goes on with it, as a person would; the summary, and what was said."""
    notes = Notes()
    resume = RunFolder(Path(config.output)).exists
    with patch.object(files, "observer", observer):
        return train(config, notes, resume=resume, allow_changed=allow, engine=engine), notes


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that must be the same whenever the run is; nothing else may be there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name in {"lock", "timings.jsonl", "report.html"}:
            continue
        data = path.read_bytes()
        if name == "summary.json":
            summary = json.loads(data)
            data = json.dumps({key: value for key, value in summary.items() if key != "seconds"}).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


@dataclass
class At:
    """Fails at the arrival of operation number `index`; `torn`: half of what is being written is written.

    After a kill, nothing happens any more in any thread.
    """

    index: int
    error: BaseException
    torn: bool = False
    seen: int = 0

    def __call__(self, operation: Operation) -> None:
        here, self.seen = self.seen == self.index, self.seen + 1
        if not here:
            if isinstance(self.error, Kill) and self.seen > self.index:
                raise self.error
            return
        if self.torn and operation.data:
            with operation.path.open("ab", buffering=0) as file:
                file.write(operation.data[: len(operation.data) // 2])
        raise self.error


def operations(config: Config) -> list[Operation]:
    """All that a run announces from its beginning to its end."""
    seen: list[Operation] = []
    run(config, observer=seen.append)
    return seen
