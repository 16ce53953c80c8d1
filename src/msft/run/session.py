"""From a configuration to a finished run: data, engine, search, final model, export."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from msft.config.as_begun import as_begun
from msft.config.reader import flatten
from msft.config.schema import Config
from msft.core.vocabulary import ROOT
from msft.data.load import on_day
from msft.engine.launch import check_precision_and_compiler
from msft.engine.parallel import Processes
from msft.engine.progress import ScoreInfo, StepInfo, Watcher
from msft.engine.torch_engine import TorchEngine
from msft.model.finite import check_finite
from msft.model.precision import precision_on
from msft.record.run_folder import RunFolder
from msft.report.cautions import few_items
from msft.run.attempt import Attempt, MakeEngine, RunEngine, Shared
from msft.run.job import Job
from msft.run.resume import check_room, paused
from msft.run.signals import StopRequest
from msft.run.trackers import Several, Trackers, check_trackers
from msft.snapshots.store import Store
from msft.system.stopwatch import Stopwatch, spent


def torch_engine(job: Job, store: Store, on_step: Callable[[StepInfo | ScoreInfo], None]) -> RunEngine:
    """The engine of a real run."""
    return TorchEngine(job.model, job.data, job.settings, store, on_step=on_step)


def score_base(job: Job, store: Store, progress: Callable[[StepInfo | ScoreInfo], None] | None = None) -> Shared:
    """Scores the base model, validation and test, for the runs of a study."""
    check_finite(job.source)
    engine = TorchEngine(job.model, job.data, job.settings, store, on_step=progress)
    return Shared(job.fingerprints(engine), engine.base(), engine.test(ROOT) if job.tested else None)


def train(
    config: Config,
    watcher: Watcher,
    *,
    resume: bool = False,
    allow_changed: Collection[str] = (),
    job: Job | None = None,
    shared: Shared | None = None,
    stopwatch: Stopwatch | None = None,
    engine: MakeEngine = torch_engine,
    store: Callable[..., Store] = Store,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs a configuration to its end, and returns the summary, which is in the run folder as summary.json.

    `resume`: continues the run in the folder. `allow_changed`: fields of `resume.HARMLESS` in which it may differ from
    the run that is resumed; the journal records them. `job`: one prepared for another run with the same model and data.
    `shared`: for a run of a study. `stopwatch`: started when the command began. `engine`, `store`: their factories.
    `overrides`: the `--set` that `config` has, kept in the run folder, so that a resumed run has them too.

    Raises a UserError before anything is written if configuration, data, model or run folder cannot be used, and
    Stopped if a signal ended the run.
    """
    folder = RunFolder(Path(config.output))
    check = folder.check_resumable if resume else folder.check_free
    processes = Processes()
    bf16 = precision_on(processes.device, config.model.precision) != "fp32"
    check_precision_and_compiler(bf16=bf16, torch_compile=config.training.torch_compile)
    stopwatch = stopwatch or Stopwatch()
    with ExitStack() as held:
        held.enter_context(stopwatch.running())
        if processes.is_main:
            if early := folder.visited:
                held.enter_context(folder.owned())  # a second process fails here, before anything is loaded
            check()
            check_trackers(config.training.report_to)
        past = folder.transcript() if resume else None
        if past is not None:
            config = as_begun(on_day(config, past.day), past.score_excluded)
        job = job.of(config) if job else Job.prepare(config)
        if processes.is_main and shared is None:
            with spent("start.model"):
                check_finite(job.source)
        try:
            if processes.is_main:
                if not early:
                    folder.create()
                    held.enter_context(folder.owned())
                    check()
                check_room(folder, job.snapshot_bytes, job.model_bytes, past)
            for note in [*few_items({task: len(part.validation) for task, part in job.data.items()}), *job.notes]:
                watcher.note(note)
            stop = held.enter_context(StopRequest())
            trackers = None
            if config.training.report_to and processes.is_main:
                names = config.training.report_to
                trackers = Trackers(names, folder.trackers, folder.path.resolve().name, flatten(config))
                held.enter_context(closing(trackers))
            watching = watcher if trackers is None else Several(watcher, trackers)
            run = Attempt(job, folder, processes, watching, stop, shared, stopwatch, engine, store, overrides)
            with run.store:
                summary = run.go(resume, allow_changed)
            if trackers is not None:
                trackers.finish(summary["test"])
            return summary
        except OSError as error:
            if not folder.holds(error.filename):
                raise
            raise paused(error, folder, job.snapshot_bytes) from error
