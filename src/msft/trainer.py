"""From a configuration to a finished run: data, engine, search, answer, hand-over."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from msft import __version__, files
from msft.config.reader import dump, flatten
from msft.config.schema import Config
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Task
from msft.core.wire import brief_from_json, brief_to_json, outcome_to_json
from msft.data.examples import TaskData
from msft.data.load import load_tasks
from msft.drive import drive, needed
from msft.engine.finite import check_finite
from msft.engine.model import ModelSource, check_data_fits, layout, load_tokenizer
from msft.engine.parallel import Processes
from msft.engine.progress import ScoreInfo, StepInfo, Watcher
from msft.engine.settings import EngineSettings
from msft.engine.torch_engine import TorchEngine
from msft.journal import Journal, Transcript
from msft.methods import METHODS, dynamix
from msft.recovery import (
    check_journal_is_whole,
    check_room,
    discard_damaged,
    final_is_whole,
    identity,
    learning_rates,
    paused,
    reconcile,
    restore_derived,
)
from msft.report.page import write_page
from msft.report.summary import summarise
from msft.run import RunFolder, environment
from msft.signals import StopRequest
from msft.snapshots.publish import publish
from msft.snapshots.store import Store

SNAPSHOT_MEMORY = 0.4
"""Share of the memory that is free at the start which snapshots may take before they go to disk only."""


@dataclass(frozen=True)
class Job:
    """A configuration with everything that it names found and checked; nothing has been written yet."""

    config: Config
    source: ModelSource
    data: Mapping[Task, TaskData]
    layout: PreTrainedModel | PeftModel
    """The model without its weights."""

    @classmethod
    def prepare(cls, config: Config) -> Job:
        """Raises ModelError or DataError before any weight is loaded."""
        source = model_source(config)
        tokenizer = load_tokenizer(source)
        model = layout(source, tokenizer)
        data = load_tasks(config, tokenizer)
        check_data_fits(model, data)
        return cls(config, source, data, model)

    @property
    def settings(self) -> EngineSettings:
        t, method = self.config.training, self.config.method
        look = method.params if isinstance(method.params, dynamix.Params) else dynamix.Params()
        tokens = t.max_tokens_per_microbatch
        return EngineSettings(
            seed=self.config.data.seed,
            batch_size=t.batch_size,
            horizon=self.horizon,
            learning_rate=t.learning_rate,
            schedule=t.schedule,
            warmup=t.warmup,
            weight_decay=t.weight_decay,
            max_grad_norm=t.max_grad_norm,
            loss_reduction=t.loss_reduction,
            max_tokens_per_microbatch=None if tokens == "auto" else tokens,
            gradient_checkpointing=t.gradient_checkpointing,
            autocast=self.config.model.autocast,
            lookahead_batch=look.lookahead_batch,
            virtual=look.virtual,
            durable=self.config.snapshots.durable,
        )

    @property
    def horizon(self) -> float:
        return math.inf if self.config.method.horizon is None else self.config.method.horizon

    def brief(self, base: Outcome) -> Brief:
        method = self.config.method
        return Brief(
            tasks=tuple(self.data),
            sizes=tuple(len(part.train) for part in self.data.values()),
            validation_sizes=tuple(len(part.validation) for part in self.data.values()),
            batch_size=self.config.training.batch_size,
            seed=self.config.data.seed,
            base=base,
            horizon=self.horizon,
            eval_every=method.eval_every,
            select=method.select,
            average=method.average,
            params=method.params,
        )

    @property
    def snapshot_bytes(self) -> int:
        """Of the largest snapshot: the trainable weights and Adam's two moments of each, in fp32."""
        return 12 * sum(p.numel() for p in self.layout.parameters() if p.requires_grad)

    @property
    def model_bytes(self) -> int:
        return 4 * sum(p.numel() for p in self.layout.parameters())

    def header(self, brief: Brief, engine: TorchEngine) -> dict[str, Any]:
        """The journal's first record: all that decides the run."""
        config = flatten(self.config)
        config.pop("output")
        return {
            "msft": __version__,
            "method": self.config.method.name,
            "brief": brief_to_json(brief),
            "model": {
                "name": self.config.model.name_or_path,
                "parameters": engine.parameters,
                "bytes": engine.model_bytes,
            },
            "fingerprints": {
                "model": engine.fingerprint,
                "data": {task: part.fingerprint for task, part in self.data.items()},
            },
            "measures": {
                task: {"name": m.name, "normalize": m.normalize, "control": m.control}
                for task, m in ((task, part.measure) for task, part in self.data.items())
            },
            "config": config,
            "environment": _environment(),
        }


def model_source(config: Config) -> ModelSource:
    model = config.model
    return ModelSource(
        name_or_path=model.name_or_path,
        revision=model.revision,
        gguf_file=model.gguf_file,
        trust_remote_code=model.trust_remote_code,
        peft=None if config.peft is None else config.peft.model_dump(),
        seed=config.data.seed,
    )


def train(
    config: Config, watcher: Watcher, *, resume: bool = False, allow_changed: Collection[str] = ()
) -> dict[str, Any]:
    """The main job. Returns the summary, which lies in the run folder as summary.json.

    Raises a UserError before anything is written where configuration, data, model or run folder cannot be used, and
    Stopped where a signal ended the run. `allow_changed`: what may differ from the run that is resumed, of
    `recovery.HARMLESS`; the journal notes it.
    """
    folder = RunFolder(Path(config.output))
    check = folder.check_resumable if resume else folder.check_free
    processes = Processes()
    with ExitStack() as held:
        if processes.is_main:
            if early := folder.lock.exists():
                held.enter_context(folder.owned())  # who comes second learns it before anything is loaded
            check()
        job = Job.prepare(config)
        if processes.is_main:
            check_finite(job.source)
        try:
            if processes.is_main:
                if not early:
                    folder.create()
                    held.enter_context(folder.owned())
                    check()
                check_room(folder, job.snapshot_bytes, job.model_bytes)
            for task, part in job.data.items():
                for note in part.notes:
                    watcher.note(f"{task}: {note}")
            stop = held.enter_context(StopRequest())
            return _Run(job, folder, processes, watcher, stop).go(resume, allow_changed)
        except OSError as error:
            if not folder.holds(error.filename):
                raise
            raise paused(error, folder, job.snapshot_bytes) from error


class _Run:
    """One process's part in a run. The main process alone writes."""

    def __init__(self, job: Job, folder: RunFolder, processes: Processes, watcher: Watcher, stop: StopRequest) -> None:
        self.job, self.folder, self.processes, self.watcher, self.stop = job, folder, processes, watcher, stop
        self.store = Store(folder.snapshots, memory_bytes=_snapshot_memory(processes), main=processes.is_main)
        self.engine = TorchEngine(job.source, job.data, job.settings, self.store, on_step=self._progress)
        self.method = METHODS[job.config.method.name]

    def go(self, resume: bool, allow_changed: Collection[str]) -> dict[str, Any]:
        journal, past = self._resume(allow_changed) if resume else self._begin()
        brief = brief_from_json(past.header["brief"], params=self.job.config.method.params)
        self.watcher.begin(brief, self.job.config.method.name)
        for number, (segment, outcome) in enumerate(past.segments, 1):
            self.watcher.segment(number, segment)
            self.watcher.outcome(number, segment, outcome)
        search = Search(self.method, brief, past.segments)
        if journal is not None:
            self.store.about = lambda number: identity(past.header, journal.position(number))
            discard_damaged(self.store, needed(search), self.watcher.note)
        self.processes.barrier()

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
        return self._hand_over(answer, {} if journal is None else identity(past.header, journal.position()))

    def _begin(self) -> tuple[Journal | None, Transcript]:
        self._clock = time.perf_counter()
        if self.processes.is_main:
            for file, content in self._derived().items():
                files.replace(file.stem, file, content, place=False)  # the journal's creation places it
            self.store.rehearse(self.engine.state())
        base = self.engine.base()
        self._time("base", ROOT)
        header = _as_json(self.job.header(self.job.brief(base), self.engine))
        files.stage("begin")
        journal = Journal.create(self.folder.journal, self.folder.sidecars, header) if self.processes.is_main else None
        return journal, Transcript(header, [])

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
        made_with = json.dumps(_environment(), indent=2, ensure_ascii=False) + "\n"
        return {
            self.folder.config: dump(self.job.config).encode(),
            self.folder.environment: made_with.encode(),
        }

    def _progress(self, info: StepInfo | ScoreInfo) -> None:
        """The boundaries at which a run can stop; several processes stop at the same step, whoever got the signal."""
        self.watcher.progress(info)
        if self.processes.world == 1:
            self.stop.check()
        elif isinstance(info, StepInfo):
            self.stop.signal = int(self.processes.total(np.array([float(self.stop.signal)])).max())
            self.stop.check()

    def _test(self, answer: int) -> dict[str, Any]:
        """The test split is scored here and nowhere else: the base model and the answer, once."""
        if not any(part.test for part in self.job.data.values()):
            return {"answer": answer, "test": None}
        files.stage("test")
        test = {name: outcome_to_json(self.engine.test(point)) for name, point in (("answer", answer), ("base", ROOT))}
        self._time("test")
        return {"answer": answer, "test": test}

    def _hand_over(self, answer: int, run: dict[str, Any]) -> dict[str, Any]:
        """`final/` appears whole or not at all; summary and page are made from the journal."""
        main, final = self.processes.is_main, self.folder.final
        files.stage("export")
        whole = main and final_is_whole(self.folder, run, self.watcher.note)
        if not self.processes.total(np.array([float(whole)]))[0]:
            export = partial(self.engine.export, answer)
            if main:
                publish("final", final, export, {"run": run}, place=False)  # the page, written last, places all
            else:
                export(final)
            self._time("export")
        if not main:
            self.processes.barrier()
            return {}
        files.stage("summary")
        summary = summarise(self.folder)
        self.folder.write_json(self.folder.summary, summary, place=False)
        files.stage("page")
        write_page(self.folder, self.folder.page)
        files.stage("end")
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


def _environment() -> dict[str, Any]:
    return {**environment(), "threads": torch.get_num_threads()}


def _as_json(header: dict[str, Any]) -> dict[str, Any]:
    """As the journal gives it back: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain
