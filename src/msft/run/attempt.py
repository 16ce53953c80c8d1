"""One process's attempt at a run: from its start, or where it was interrupted, to its end or the next stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from msft.config.reader import dump
from msft.core.errors import Diverged, Stopped, UserError
from msft.core.retention import Limits, replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot, Task
from msft.core.wire import brief_from_json, differences, outcome_to_json
from msft.engine.parallel import Processes
from msft.engine.progress import ScoreInfo, StepInfo, Watcher
from msft.record.journal import Journal, Transcript
from msft.record.run_folder import RunFolder
from msft.report.card import write_card
from msft.report.page import write_page
from msft.report.summary import summarise
from msft.run.agreement import check_agreement
from msft.run.job import Described, Job, made_with
from msft.run.loop import Engine, drive, needed
from msft.run.open_store import open_store, take_over
from msft.run.resume import (
    PARTS,
    check_journal_is_whole,
    discard_damaged,
    final_is_whole,
    identity,
    learning_rates,
    limits,
    reconcile,
    regrouped,
    restore_derived,
)
from msft.run.sampling import Asked, sampled_outputs
from msft.run.signals import StopRequest
from msft.scoring.sample_outputs import Sample
from msft.snapshots.publish import publish
from msft.snapshots.state import State
from msft.snapshots.store import Store
from msft.system import files
from msft.system.stopwatch import Stopwatch, spent


class RunEngine(Engine, Described, Protocol):
    """An engine with what the journal records of it, and the learning rates that a resumed run may set."""

    notes: Sequence[str]
    """Why rows are padded, what was made lighter in the model, and what is to be known of its files; for people."""
    learning_rates: Sequence[tuple[int, float]]
    """(first segment, learning rate from there on), in order."""

    def state(self) -> State:
        """The live trainable weights; not a copy."""

    def replicated(self) -> int:
        """A checksum of the weights that every process must hold alike."""

    def sample(self, snapshot: Snapshot, asked: Asked) -> Mapping[Task, Sequence[Sample]]:
        """What a snapshot answers to a few items. Raises ModelError if it is not proven how the model generates."""


MakeEngine: TypeAlias = Callable[[Job, Store, Callable[[StepInfo | ScoreInfo], None]], RunEngine]


@dataclass(frozen=True)
class Shared:
    """What the runs of a study share: scores of the base model, which do not depend on method or training seed.

    Unless it `hands_over`, a run with shared scores keeps only its record and its summary: models, snapshots and pages
    of hundreds of runs would fill a disk. `msft train <run>/config.yaml --resume` makes them again, bit for bit.
    """

    fingerprints: dict[str, Any]
    base: Outcome
    test: Outcome | None
    """None if there is no test split."""
    jobs: int = 1
    """Runs of the study at the same time: they share the machine's memory."""
    hands_over: bool = False
    """Whether a run keeps its model, its notes and its page, as a run by itself does."""


class Attempt:
    """One process's part in a run. Only the main process writes."""

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
        overrides: Sequence[str] = (),
    ) -> None:
        self.job, self.folder, self.processes, self.watcher, self.stop = job, folder, processes, watcher, stop
        self.shared, self.stopwatch, self.overrides = shared, stopwatch, overrides
        self.hands_over = shared is None or shared.hands_over
        self.started = False
        self.exact = True
        """Whether what is computed again must give the same bits."""
        in_parts = processes.sharding(job.settings.shard) is not None
        self.store = open_store(folder, processes, store, in_parts=in_parts, jobs=shared.jobs if shared else 1)
        with spent("start.model"):
            self.engine = engine(job, self.store, self._progress)
        for note in self.engine.notes if self.hands_over else ():
            watcher.note(note)
        self.method = job.config.method.definition
        self.limits: Limits = [(1, job.config.snapshots.max)]
        self.idle = False
        """Whether the run had ended before, with all that it leaves, so that this attempt is no part of its time."""
        if shared is not None and (changed := differences(shared.fingerprints, job.fingerprints(self.engine))):
            raise Diverged(str(folder.path), [f"since the base model was scored, {line}" for line in changed])

    def go(self, resume: bool, allow_changed: Collection[str]) -> dict[str, Any]:
        journal, past = self._resume(allow_changed) if resume else self._begin()
        brief = brief_from_json(past.header["brief"], params=self.job.config.method.params)
        self.idle = past.final is not None
        with spent("record"):
            self.watcher.begin(brief, self.job.config.method.name)
            if resume:
                self.watcher.resumed(past.segments, finished=self.idle)
        search = Search(self.method, brief, past.segments)
        if journal is not None:
            self.store.about = lambda number: identity(past.header, journal.position(number))
        if journal is not None or self.store.in_parts:
            retention, _ = replayed(
                brief, past.segments, search.ask(), search.answer, self.limits, search.outlook.window
            )
            with spent("start.folder"):
                discard_damaged(self.store, needed(search) | retention.held, self.watcher.note)
        self.processes.barrier()

        def record(number: int, segment: Segment, outcome: Outcome) -> None:
            with spent("record"):
                check_agreement(self.processes, self.folder, number, segment, outcome, lambda: self.engine.replicated())
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
            answer = drive(
                search, self.engine, self.store, record, past.segments, announce, self.limits, again, exact=self.exact
            )
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

    def _header(self, brief: Brief) -> dict[str, Any]:
        """The journal's header, as the journal returns it; of a model that is split, with the number of processes."""
        header = _as_json(self.job.header(brief, self.engine))
        if self.store.in_parts:
            header["environment"][PARTS] = self.processes.world
        return header

    def _begin(self) -> tuple[Journal | None, Transcript]:
        if self.processes.is_main:
            with spent("start.folder"):
                for file, content in self._derived().items():
                    files.replace(file.stem, file, content, place=False)  # synced when the journal is created
                self.folder.keep_overrides(self.overrides)
                if self.hands_over:
                    self.store.rehearse(self.engine.state())
        base = self.shared.base if self.shared else self.engine.base()
        # Comparisons value a run on items that did not choose its model.
        brief = replace(self.job.brief(base), record=self.shared is not None)
        header = self._header(brief)
        files.stage("begin")
        journal = Journal.create(self.folder.journal, self.folder.sidecars, header) if self.processes.is_main else None
        return journal, Transcript(header, [])

    @spent("start.folder")
    def _resume(self, allow_changed: Collection[str]) -> tuple[Journal | None, Transcript]:
        journal = None
        manifests = self.store.manifests() if self.processes.is_main or self.store.in_parts else {}
        if self.processes.is_main:
            journal, past = Journal.resume(self.folder.journal, self.folder.sidecars)
            written = {self.store.path(n): said for n, said in manifests.items()}
            check_journal_is_whole(len(journal.heads), self.folder, written)
            if past.torn:
                self.watcher.note(f"{self.folder.journal}: removed an incomplete last record, which was never used")
            self.processes.barrier()
        else:
            self.processes.barrier()
            past = self.folder.transcript()
        brief = replace(self.job.brief(past.brief.base), record=past.brief.record)
        if brief.score_excluded == past.brief.score_excluded:  # in version 0.1, a tick was no candidate
            brief = replace(brief, candidates=past.brief.candidates)
        changes = reconcile(past, self._header(brief), allow_changed, self.folder.path)
        self.exact = not regrouped(past, changes)
        self.engine.learning_rates = learning_rates(past, changes)
        self.limits = limits(past, changes)
        self.processes.barrier()
        take_over(self.folder, self.processes, self.store)
        if journal is not None:
            journal.sweep()
            note, derived = (lambda text: None) if changes else self.watcher.note, self._derived()
            if changes and past.final is not None:  # nothing was trained, or will be, with what has changed
                del derived[self.folder.config]
            restore_derived(self.folder, derived, note)
            if not changes or past.final is None:
                self.folder.keep_overrides(self.overrides)
                for path, was, new in changes:
                    journal.change(path, was, new)
        return journal, past

    def _derived(self) -> dict[Path, bytes]:
        """Readable copies of what the journal's header records."""
        environment, notes = (
            (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
            for content in (made_with(self.job.libraries), self.job.notes)
        )
        config = dump(self.job.config).encode()
        return {self.folder.config: config, self.folder.environment: environment, self.folder.notes: notes}

    def _progress(self, info: StepInfo | ScoreInfo) -> None:
        """Reports progress, and stops the run if a signal has come to any process, or a watcher stops it; all processes
        stop at the same step."""
        try:
            with spent("record"):
                self.watcher.progress(info)
        except Stopped as stopped:
            self.stop.signal = self.stop.signal or stopped.signal
        if isinstance(info, StepInfo):
            self.stop.check_together(self.processes)
        elif self.processes.world == 1:
            self.stop.check()

    def _test(self, answer: int) -> dict[str, Any]:
        """Scores the base model and the final model on the test split, once. The test split is scored nowhere else."""
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
        """Writes `final/` (completely or not at all), summary and page; for most runs of a study, only the summary."""
        if not self.hands_over:
            self._time("end")
            summary = summarise(self.folder)
            self.folder.write_json(self.folder.summary, summary)
            self.store.prune(())
            return summary
        main, final = self.processes.is_main, self.folder.final
        files.stage("export")
        with spent("export"):
            found = False, False
            if main:
                found = bool(self.folder.read_samples()), final_is_whole(self.folder, run, self.watcher.note)
            sampled, whole = self.processes.from_main(found)
            self.idle = self.idle and sampled and whole
            if not sampled:
                samples = sampled_outputs(self.engine.sample, self.job.data, answer, self.watcher.note)
                if main and samples:
                    self.folder.write_samples(samples)  # synced with the page
            if not whole and main:
                # synced with the page
                publish("final", final, self._fill(answer), {"run": run}, place=False, home=self.folder.path)
            elif not whole:
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
        """Returns the function that writes the final model and its card into a folder."""

        def fill(draft: Path) -> None:
            self.engine.export(answer, draft)
            write_card(self.folder, draft)

        return fill

    def _time(self, kind: str, number: int | None = None) -> None:
        """Records the seconds since the last call, by kind, and the date (Unix time); for a recomputed segment, all
        seconds as `recompute`."""
        seconds = self.stopwatch.drain()
        if self.idle and kind != "recompute":
            return
        if kind == "recompute":
            seconds = {kind: math.fsum(seconds.values())}
        if self.processes.is_main:
            entry = {"kind": kind, "number": number, "seconds": seconds, "at": round(time.time())}
            self.folder.add_timing(entry)


def _as_json(header: dict[str, Any]) -> dict[str, Any]:
    """The header as the journal returns it: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain
