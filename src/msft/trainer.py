"""From a configuration to a finished run: data, engine, search, answer, hand-over."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from msft.config.reader import dump
from msft.config.schema import Config
from msft.core.errors import Diverged
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment
from msft.core.wire import brief_from_json, differences, outcome_to_json
from msft.drive import drive
from msft.engine.finite import check_finite
from msft.engine.parallel import Processes
from msft.engine.progress import ScoreInfo, StepInfo
from msft.engine.torch_engine import TorchEngine
from msft.job import Job
from msft.journal import Journal, Transcript
from msft.methods import METHODS
from msft.report.card import write_card
from msft.report.page import write_page
from msft.report.summary import summarise
from msft.run import RunFolder, environment
from msft.snapshots.store import Store

SNAPSHOT_MEMORY = 0.4
"""Share of the memory that is free at the start which snapshots may take before they go to disk only."""


class Watcher(Protocol):
    """Who watches a run: the terminal's display, or nobody."""

    def begin(self, brief: Brief, method: str) -> None:
        """The base model is scored; the search begins."""

    def segment(self, number: int, segment: Segment) -> None:
        """This segment is about to run."""

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        """A step was taken, or scoring went on."""

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """This segment is journaled."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True)
class Shared:
    """What the runs of a study have in common: scores of the base model, which no method or training seed changes.

    A run that is given them keeps its record and its summary alone: no model, no snapshot, no page, which hundreds of
    runs would fill a disk with. `msft train <run>/config.yaml --resume` makes them again, bit for bit.
    """

    fingerprints: dict[str, Any]
    base: Outcome
    test: Outcome | None
    """None where there is no test split."""


def score_base(job: Job, store: Store) -> Shared:
    """Scores the base model, validation and test, for the runs of a study."""
    check_finite(job.source)
    engine = TorchEngine(job.source, job.data, job.settings, store)
    return Shared(job.fingerprints(engine), engine.base(), engine.test(ROOT) if job.tested else None)


def train(
    config: Config,
    watcher: Watcher,
    *,
    resume: bool = False,
    job: Job | None = None,
    shared: Shared | None = None,
) -> dict[str, Any]:
    """The main job. Returns the summary, which lies in the run folder as summary.json.

    `job`: prepared already, of another run with the same model and data. `shared`: this is a run of a study. Raises a
    UserError before anything is written where configuration, data, model or run folder cannot be used.
    """
    folder = RunFolder(Path(config.output))
    check = folder.check_resumable if resume else folder.check_free
    processes = Processes()
    if processes.is_main:
        check()
    job = job.of(config) if job else Job.prepare(config)
    if processes.is_main:
        if shared is None:
            check_finite(job.source)
        folder.create()
    with folder.owned() if processes.is_main else nullcontext():
        if processes.is_main and not resume:
            folder.config.write_text(dump(config), encoding="utf-8")
            folder.write_json(folder.environment, environment())
        for task, part in job.data.items():
            for note in part.notes:
                watcher.note(f"{task}: {note}")
        return _Run(job, folder, processes, watcher, shared).go(resume)


class _Run:
    """One process's part in a run. The main process alone writes."""

    def __init__(
        self, job: Job, folder: RunFolder, processes: Processes, watcher: Watcher, shared: Shared | None
    ) -> None:
        self.job, self.folder, self.processes, self.watcher, self.shared = job, folder, processes, watcher, shared
        self.store = Store(folder.snapshots, memory_bytes=_snapshot_memory(processes), main=processes.is_main)
        self.engine = TorchEngine(job.source, job.data, job.settings, self.store, on_step=watcher.progress)
        self.method = METHODS[job.config.method.name]
        if shared is not None and (changed := differences(shared.fingerprints, job.fingerprints(self.engine))):
            raise Diverged(str(folder.path), [f"since the base model was scored, {line}" for line in changed])

    def go(self, resume: bool) -> dict[str, Any]:
        journal, past = self._resume() if resume else self._begin()
        brief = brief_from_json(past.header["brief"], params=self.job.config.method.params)
        self.watcher.begin(brief, self.job.config.method.name)
        for number, (segment, outcome) in enumerate(past.segments, 1):
            self.watcher.segment(number, segment)
            self.watcher.outcome(number, segment, outcome)
        search = Search(self.method, brief, past.segments)

        def record(number: int, segment: Segment, outcome: Outcome) -> None:
            if journal is not None:
                journal.segment(number, segment, outcome)
            self._time("segment", number)
            self.watcher.outcome(number, segment, outcome)

        self._clock = time.perf_counter()
        answer = drive(search, self.engine, self.store, record, past.segments, self.watcher.segment)
        if past.final is None:
            final = self._test(answer)
            if journal is not None:
                journal.final(final)
        return self._hand_over(answer)

    def _begin(self) -> tuple[Journal | None, Transcript]:
        self._clock = time.perf_counter()
        base = self.shared.base if self.shared else self.engine.base()
        self._time("base", ROOT)
        header = self.job.header(self.job.brief(base), self.engine)
        journal = Journal.create(self.folder.journal, self.folder.sidecars, header) if self.processes.is_main else None
        return journal, Transcript(header, [])

    def _resume(self) -> tuple[Journal | None, Transcript]:
        if self.processes.is_main:
            journal, past = Journal.resume(self.folder.journal, self.folder.sidecars)
            if past.torn:
                self.watcher.note(f"{self.folder.journal}: cut off a torn last record, never acted on")
            self.processes.barrier()
        else:
            self.processes.barrier()
            journal, past = None, self.folder.transcript()
        recorded = {key: value for key, value in past.header.items() if key != "wire"}
        now = self.job.header(self.job.brief(past.brief.base), self.engine)
        if changed := differences(recorded, _as_json(now)):
            raise Diverged(str(self.folder.path), changed)
        return journal, past

    def _test(self, answer: int) -> dict[str, Any]:
        """The test split is scored here and nowhere else: the base model and the answer, once."""
        if not self.job.tested:
            return {"answer": answer, "test": None}
        tested = self.engine.test(answer)
        base = self.shared.test if self.shared and self.shared.test else self.engine.test(ROOT)
        self._time("test")
        return {"answer": answer, "test": {"answer": outcome_to_json(tested), "base": outcome_to_json(base)}}

    def _hand_over(self, answer: int) -> dict[str, Any]:
        """`final/` appears whole or not at all; summary and page are made from the journal. Of a study, a summary."""
        if self.shared is not None:
            summary = summarise(self.folder)
            self.folder.write_json(self.folder.summary, summary)
            self.store.prune(())
            return summary
        draft = self.folder.final.with_name(".final.tmp")
        if not self.folder.final.exists():
            if self.processes.is_main and draft.exists():
                shutil.rmtree(draft)
            self.processes.barrier()
            self.engine.export(answer, draft)
            if self.processes.is_main:
                write_card(self.folder, draft)
                draft.replace(self.folder.final)
            self._time("export")
        if not self.processes.is_main:
            self.processes.barrier()
            return {}
        summary = summarise(self.folder)
        self.folder.write_json(self.folder.summary, summary)
        write_page(self.folder, self.folder.page)
        self.processes.barrier()
        return summary

    def _time(self, kind: str, number: int | None = None) -> None:
        """Wall-clock since the last call, by kind; what the engine does not name is `other`."""
        now = time.perf_counter()
        seconds = self.engine.drain_seconds()
        seconds["other"] = max(0.0, now - self._clock - sum(seconds.values()))
        self._clock = now
        if self.processes.is_main:
            self.folder.add_timing({"kind": kind, "number": number, "seconds": seconds})


def _snapshot_memory(processes: Processes) -> int:
    """Bytes that snapshots may take in each process's memory: all must decide alike what goes to disk."""
    free = SNAPSHOT_MEMORY * psutil.virtual_memory().available / processes.world
    return int(processes.total(np.array([free if processes.is_main else 0.0]))[0])


def _as_json(header: dict[str, Any]) -> dict[str, Any]:
    """As the journal gives it back: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain
