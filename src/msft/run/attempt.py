"""One process's attempt at a run: from its beginning, or where it was interrupted, to its end or the next stop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import psutil

from msft.config.reader import dump
from msft.core.errors import Diverged, Stopped, UserError
from msft.core.retention import Limits, replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Outcome, Segment
from msft.core.wire import brief_from_json, differences, outcome_to_json
from msft.engine.parallel import Processes
from msft.engine.progress import ScoreInfo, StepInfo, Watcher
from msft.record.journal import Journal, Transcript
from msft.record.run_folder import RunFolder
from msft.report.card import write_card
from msft.report.page import write_page
from msft.report.summary import summarise
from msft.run.job import Job, made_with
from msft.run.loop import Engine, drive, needed
from msft.run.resume import (
    check_journal_is_whole,
    discard_damaged,
    final_is_whole,
    identity,
    learning_rates,
    limits,
    reconcile,
    restore_derived,
)
from msft.run.signals import StopRequest
from msft.snapshots.publish import publish
from msft.snapshots.state import State
from msft.snapshots.store import Store
from msft.system import files
from msft.system.stopwatch import Stopwatch, spent

SNAPSHOT_MEMORY = 0.4
"""Share of the memory that is free at the start which snapshots may take before they go to disk only."""


class RunEngine(Engine, Protocol):
    """An engine that a session can journal: what it is, and what a resumed run may set."""

    fingerprint: str
    """Of the base model."""
    parameters: int
    """Those outside the embeddings, for the cost law."""
    model_bytes: int
    light: str
    """What of the model was made lighter, for people; empty where nothing was."""
    learning_rates: Sequence[tuple[int, float]]
    """(first segment, learning rate from there on), in order."""

    def state(self) -> State:
        """The live trainable weights; not a copy."""


MakeEngine: TypeAlias = Callable[[Job, Store, Callable[[StepInfo | ScoreInfo], None]], RunEngine]


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


class Attempt:
    """One process's part in a run. The main process alone writes."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        processes: Processes,
        watcher: Watcher,
        stop: StopRequest,
        shared: Shared | None,
        stopwatch: Stopwatch,
        engine: MakeEngine,
        store: Callable[..., Store],
    ) -> None:
        self.job, self.folder, self.processes, self.watcher, self.stop = job, folder, processes, watcher, stop
        self.shared, self.stopwatch = shared, stopwatch
        self.started = False
        self.store = store(folder.snapshots, memory_bytes=_snapshot_memory(processes), main=processes.is_main)
        with spent("start.model"):
            self.engine = engine(job, self.store, self._progress)
        if self.engine.light and shared is None:
            watcher.note(self.engine.light)
        self.method = job.config.method.definition
        self.limits: Limits = [(1, job.config.snapshots.max)]
        if shared is not None and (changed := differences(shared.fingerprints, job.fingerprints(self.engine))):
            raise Diverged(str(folder.path), [f"since the base model was scored, {line}" for line in changed])

    def go(self, resume: bool, allow_changed: Collection[str]) -> dict[str, Any]:
        journal, past = self._resume(allow_changed) if resume else self._begin()
        brief = brief_from_json(past.header["brief"], params=self.job.config.method.params)
        with spent("record"):
            self.watcher.begin(brief, self.job.config.method.name)
            for number, (segment, outcome) in enumerate(past.segments, 1):
                self.watcher.segment(number, segment)
                self.watcher.outcome(number, segment, outcome)
        search = Search(self.method, brief, past.segments)
        if journal is not None:
            self.store.about = lambda number: identity(past.header, journal.position(number))
            retention, _ = replayed(
                brief, past.segments, search.ask(), search.answer, self.limits, search.outlook.window
            )
            with spent("start.folder"):
                discard_damaged(self.store, needed(search) | retention.held, self.watcher.note)
        self.processes.barrier()

        def record(number: int, segment: Segment, outcome: Outcome) -> None:
            with spent("record"):
                if journal is not None:
                    journal.segment(number, segment, outcome)
                self.watcher.outcome(number, segment, outcome)
            self._time("segment", number)

        def announce(number: int, segment: Segment) -> None:
            if not self.started:
                self._time("start")
                self.started = True
            with spent("record"):
                self.watcher.segment(number, segment)

        def again(number: int) -> None:
            self._time("recompute", number)

        try:
            answer = drive(search, self.engine, self.store, record, past.segments, announce, self.limits, again)
            final = self._test(answer) if past.final is None else None
            with spent("snapshot.durable"):
                self.store.finish()
        except (Stopped, UserError):
            self._time("stopped")
            raise
        if final is not None and journal is not None:
            with spent("record"):
                journal.final(final)
        return self._hand_over(answer, {} if journal is None else identity(past.header, journal.position()))

    def _begin(self) -> tuple[Journal | None, Transcript]:
        if self.processes.is_main:
            with spent("start.folder"):
                for file, content in self._derived().items():
                    files.replace(file.stem, file, content, place=False)  # the journal's creation places it
                if self.shared is None:
                    self.store.rehearse(self.engine.state())
        base = self.shared.base if self.shared else self.engine.base()
        header = _as_json(self.job.header(self.job.brief(base), self.engine))
        files.stage("begin")
        journal = Journal.create(self.folder.journal, self.folder.sidecars, header) if self.processes.is_main else None
        return journal, Transcript(header, [])

    @spent("start.folder")
    def _resume(self, allow_changed: Collection[str]) -> tuple[Journal | None, Transcript]:
        journal = None
        if self.processes.is_main:
            journal, past = Journal.resume(self.folder.journal, self.folder.sidecars)
            check_journal_is_whole(journal, self.folder, self.store)
            if past.torn:
                self.watcher.note(f"{self.folder.journal}: cut off a torn last record, never acted on")
            self.processes.barrier()
        else:
            self.processes.barrier()
            past = self.folder.transcript()
        now = _as_json(self.job.header(self.job.brief(past.brief.base), self.engine))
        changes = reconcile(past, now, allow_changed, self.folder.path)
        self.engine.learning_rates = learning_rates(past, changes)
        self.limits = limits(past, changes)
        self.processes.barrier()
        if journal is not None:
            journal.sweep()
            note = (lambda text: None) if changes else self.watcher.note
            restore_derived(self.folder, self._derived(), note)
            for path, was, new in changes if past.final is None else []:
                journal.change(path, was, new)
        return journal, past

    def _derived(self) -> dict[Path, bytes]:
        """Files that say for people what the journal's header says as well."""
        environment, notes = (
            (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
            for content in (made_with(), self.job.notes)
        )
        config = dump(self.job.config).encode()
        return {self.folder.config: config, self.folder.environment: environment, self.folder.notes: notes}

    def _progress(self, info: StepInfo | ScoreInfo) -> None:
        """The boundaries at which a run can stop; several processes stop at the same step, whoever got the signal."""
        with spent("record"):
            self.watcher.progress(info)
        if self.processes.world == 1:
            self.stop.check()
        elif isinstance(info, StepInfo):
            self.stop.signal = int(self.processes.total(np.array([float(self.stop.signal)])).max())
            self.stop.check()

    def _test(self, answer: int) -> dict[str, Any]:
        """The test split is scored here and nowhere else: the base model and the answer, once."""
        if not self.job.tested:
            return {"answer": answer, "test": None}
        files.stage("test")
        tested = self.engine.test(answer)
        base = self.shared.test if self.shared else None
        if base is None:
            base = tested if answer == ROOT else self.engine.test(ROOT)
        self._time("test")
        return {"answer": answer, "test": {"answer": outcome_to_json(tested), "base": outcome_to_json(base)}}

    def _hand_over(self, answer: int, run: dict[str, Any]) -> dict[str, Any]:
        """`final/` appears whole or not at all; summary and page are made from the journal. Of a study, a summary."""
        if self.shared is not None:
            self._time("end")
            summary = summarise(self.folder)
            self.folder.write_json(self.folder.summary, summary)
            self.store.prune(())
            return summary
        main, final = self.processes.is_main, self.folder.final
        files.stage("export")
        with spent("export"):
            whole = main and final_is_whole(self.folder, run, self.watcher.note)
        if not self.processes.total(np.array([float(whole)]))[0]:
            with spent("export"):
                if main:
                    publish("final", final, self._fill(answer), {"run": run}, place=False)  # the page, last, places all
                else:
                    self.engine.export(answer, final)
        if not main:
            self.processes.barrier()
            return {}
        self._time("export")
        files.stage("summary")
        summary = summarise(self.folder)
        self.folder.write_json(self.folder.summary, summary, place=False)
        files.stage("page")
        with spent("record"):
            write_page(self.folder, self.folder.page)
        self._time("page")
        files.stage("end")
        self.processes.barrier()
        return summary

    def _fill(self, answer: int) -> Callable[[Path], None]:
        """What writes the final model and its card into a folder."""

        def fill(draft: Path) -> None:
            self.engine.export(answer, draft)
            write_card(self.folder, draft)

        return fill

    def _time(self, kind: str, number: int | None = None) -> None:
        """Wall-clock by kind since the last call: what was going on until now; all of a repeat is one kind."""
        seconds = self.stopwatch.drain()
        if kind == "recompute":
            seconds = {kind: math.fsum(seconds.values())}
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
