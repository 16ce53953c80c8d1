"""A worker process of a study: it executes the runs assigned to it, one after another."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config

from msft.config.schema import Config
from msft.core.errors import RunError, Stopped, UserError, complaint, first_line
from msft.core.wire import outcome_from_json, outcome_to_json
from msft.engine.outcomes import OF_A_RUN
from msft.methods import load_installed
from msft.model.memory import share_card
from msft.record.journal import canonical, digest
from msft.record.run_folder import RunFolder
from msft.run.attempt import Shared
from msft.run.job import Job
from msft.run.session import score_base, train
from msft.snapshots.store import Store
from msft.study.grid import sharing_key
from msft.study.positions import Position, Reporter
from msft.system import files
from msft.system.locks import lock

OF_A_STUDY = "begin again in another folder (--output), with max_grad_norm or a lower training.learning_rate"
"""What to do when the training of a run diverged: all runs of a study have the settings that it began with."""
PREPARED = 4
"""Number of jobs whose tokenised data a process keeps."""


@dataclass(frozen=True)
class Result:
    """The result of a run: its summary, or the reason of its failure."""

    summary: dict[str, Any] | None
    failure: str | None
    seconds: float


def nothing() -> None:
    """Does nothing; a lambda cannot be sent to another process."""


def begin(
    parent: Connection,
    devices: Queue[tuple[str, int]] | None,
    positions: Queue[Position | None],
    threads: int,
    setup: Callable[[], None],
    alive: Path,
) -> None:
    """Set up a worker process: it ends with its parent, has a device of its own, and a share of the cores."""
    lock(os.open(alive, os.O_RDWR | os.O_CREAT, 0o600), alive, fcntl.LOCK_SH)  # until the process ends
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"], sharing = devices.get()
        share_card(sharing)
    positions.cancel_join_thread()  # a process ends though what it told is not read
    report_to(positions.put)
    use_threads(threads)
    load_installed()
    setup()
    gc.freeze()  # libraries stay, so that `_free` need not look through them


def use_threads(threads: int) -> None:
    """Limits what this process, which is one of several, computes and compiles at the same time."""
    torch.set_num_threads(threads)
    torch._inductor.config.compile_threads = threads


def _end_with(parent: Connection) -> None:
    """Exit at once when the parent ends: the journal is safe, and an orphaned run would keep its folder locked."""
    parent.poll(None)
    os._exit(1)


def _unheard(position: Position) -> None: ...


_tell: Callable[[Position], None] = _unheard


def report_to(tell: Callable[[Position], None]) -> None:
    """Sets whom the runs of this process tell their positions: a queue cannot be sent to a worker with each run."""
    global _tell
    _tell = tell


def score(config: Config, threads: int, file: Path, at: Position) -> Result:
    """Score the base model for all runs with this model and data, unless its scores exist."""
    began = time.perf_counter()
    try:
        if read_base(file) is None:
            store = Store(file.parent / "snapshots", memory_bytes=0)
            shared = score_base(prepared(config, threads), store, Reporter(at, _tell).progress)
            file.parent.mkdir(parents=True, exist_ok=True)
            files.replace("base", file, json.dumps(_base_to_json(shared)).encode())
    except UserError as error:
        return Result(None, str(error), time.perf_counter() - began)
    finally:
        _free()
    return Result({}, None, time.perf_counter() - began)


def work(config: Config, threads: int, file: Path, at: Position, jobs: int) -> Result:
    """Start or continue one run. `file`: the base model's scores. `jobs`: runs at the same time. `at`: the run's name,
    with which it tells its position."""
    began = time.perf_counter()
    if _broken:
        return Result(None, _broken[0], 0.0)
    try:
        shared = read_base(file)
        if shared is None:
            raise RunError(complaint("the scores of the base model are damaged", "repeat the study", file=file))
        job = prepared(config, threads)
        resume = RunFolder(Path(config.output)).exists
        summary = train(config, Reporter(at, _tell), resume=resume, job=job, shared=replace(shared, jobs=jobs))
    except UserError as error:
        return Result(None, str(error).replace(OF_A_RUN, OF_A_STUDY), time.perf_counter() - began)
    except Stopped:  # stops the study, not only this run
        raise
    except Exception as error:  # mostly out of memory: one failed run must not end the others
        _check_gpu()
        return Result(None, f"{type(error).__name__}: {error}", time.perf_counter() - began)
    finally:
        _free()
    return Result(summary, None, time.perf_counter() - began)


def _free() -> None:
    """Gives back what the run that is over had: model, optimizer and graphs refer to one another, so that they stay
    until Python looks for such circles, and the next run would find no room beside them."""
    gc.collect()
    if torch.cuda.is_initialized() and not _broken:  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


_broken: list[str] = []
"""Why this process can run nothing more, if so."""


def _check_gpu() -> None:
    """After some errors (an illegal address), all that a process asks of its GPU fails."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            found = f"this process's GPU fails since an earlier run ({first_line(error)})"
            _broken.append(complaint(found, "repeat the study, which continues it"))


_jobs: OrderedDict[str, Job] = OrderedDict()


def prepared(config: Config, threads: int) -> Job:
    """The job, its data tokenised once in this process. Raises ModelError or DataError."""
    key = sharing_key(config, threads)
    if key not in _jobs:
        _jobs[key] = Job.prepare(config)
        if len(_jobs) > PREPARED:
            _jobs.popitem(last=False)
    _jobs.move_to_end(key)
    return _jobs[key].of(config)


def read_base(file: Path) -> Shared | None:
    """The base model's scores; None if the file is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["sha256"] != digest(canonical(content["body"])):
            return None
        body = content["body"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    test = None if body["test"] is None else outcome_from_json(body["test"])
    return Shared(body["fingerprints"], outcome_from_json(body["base"]), test)


def _base_to_json(shared: Shared) -> dict[str, Any]:
    body = {
        "fingerprints": shared.fingerprints,
        "base": outcome_to_json(shared.base),
        "test": None if shared.test is None else outcome_to_json(shared.test),
    }
    return {"body": body, "sha256": digest(canonical(body))}
