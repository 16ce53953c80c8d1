"""Runs of a study on other machines: a Ray cluster, or jobs of SLURM (`--backend`).

Everything passes through the study's folder, which all machines must see under the same path: a run that loses its
machine continues from its journal on another.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import torch

from msft.core.errors import ConfigError, RunError, complaint, in_a_line
from msft.methods import load_installed
from msft.model.memory import share_card
from msft.study.worker import use_threads
from msft.system.locks import lock

Where: TypeAlias = Literal["local", "ray", "slurm"]
ATTEMPTS = 4
"""Of a run whose machine is lost each time, before the study ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Where the runs of a study are computed, and what each asks for."""

    where: Where = "local"
    gpus: float | None = None
    """Of each run; None: one where the cluster has any."""
    cpus: int = 1
    """Of each run."""
    options: Mapping[str, str] = field(default_factory=dict)
    """For `slurm`: further parameters of submitit, such as slurm_partition; they replace our own."""


class LostError(Exception):
    """The machine or process of a run is gone; the run's journal is safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a process elsewhere needs before it runs anything."""

    folder: str
    """The working folder of the command."""
    alive: str
    """A file that is locked while a run is in progress, so that a later command waits for it."""
    threads: int
    sharing: int
    """Processes that share a GPU."""
    setup: Callable[[], None]


def there(site: Site, do: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Runs a part of a study in this process, which may be on another machine. Raises RunError if that machine does not
    see the study's folder."""
    if not Path(site.alive).parent.is_dir():
        found = f"the machine {os.uname().nodename} has no such folder"
        raise RunError(
            complaint(found, "keep study, model and data on a disk that all machines share", file=site.folder)
        )
    with Path(site.alive).open("a") as file:
        lock(file, Path(site.alive), fcntl.LOCK_SH)
        os.chdir(site.folder)
        use_threads(site.threads)
        if torch.cuda.is_available():
            share_card(site.sharing)
        load_installed()
        site.setup()
        return do(*arguments)


class Cluster(Protocol):
    """A kind of cluster."""

    gpus: float
    """Of each run."""

    def call(self, do: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns in a process there. Raises LostError."""

    def close(self) -> None:
        """Ends what is in progress."""


class Elsewhere(Executor):
    """Runs submitted calls on a cluster, `jobs` at a time; one whose machine is lost is called again."""

    def __init__(self, cluster: Cluster, site: Site, jobs: int) -> None:
        self._cluster, self._site, self._threads = cluster, site, ThreadPoolExecutor(jobs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        assert not kwargs
        return self._threads.submit(self._patiently, fn, args)

    def _patiently(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return self._cluster.call(there, self._site, fn, args)
            except LostError as lost:
                if attempt == ATTEMPTS - 1:
                    found = f"a run lost its process {ATTEMPTS} times ({lost})"
                    raise RunError(complaint(found, "look for the cause in the cluster's logs, then repeat")) from lost
        raise AssertionError

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._cluster.close()
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)


def cluster(backend: Backend, logs: Path) -> Cluster:
    """Connects to the cluster. `logs`: where its jobs write. Raises ConfigError if a package or SLURM is missing."""
    return _Ray(backend) if backend.where == "ray" else _Slurm(backend, logs, "slurm")


def elsewhere(
    backend: Backend, folder: Path, alive: Path, threads: int, jobs: int, setup: Callable[[], None]
) -> Elsewhere:
    """The executor of a study in `folder`, whose runs use at most `threads` each."""
    made = cluster(backend, folder / "jobs")
    return Elsewhere(made, site_of(made, alive, threads, setup), jobs)


def site_of(made: Cluster, alive: Path, threads: int, setup: Callable[[], None]) -> Site:
    sharing = math.ceil(1 / made.gpus) if 0 < made.gpus < 1 else 1
    return Site(folder=str(Path.cwd()), alive=str(alive.absolute()), threads=threads, sharing=sharing, setup=setup)


class _Ray:
    """A Ray cluster: the one that RAY_ADDRESS names or that runs on this machine, else one that is started here."""

    def __init__(self, backend: Backend) -> None:
        self._ray = _package("ray", "ray")
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False, include_dashboard=False)
        if backend.gpus is None:
            self.gpus = 1.0 if self._ray.cluster_resources().get("GPU") else 0.0
        else:
            self.gpus = backend.gpus
        self._remote = self._ray.remote(num_cpus=backend.cpus, num_gpus=self.gpus, max_retries=0)
        self._running: set[Any] = set()

    def call(self, do: Callable[..., Any], *arguments: Any) -> Any:
        reference = self._remote(do).remote(*arguments)
        self._running.add(reference)
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self._ray.exceptions.RayError as error:
            raise LostError(str(error).partition("\n")[0]) from None
        finally:
            self._running.discard(reference)

    def close(self) -> None:
        for reference in list(self._running):
            self._ray.cancel(reference, force=True)


class _Slurm:
    """Jobs of SLURM, through submitit."""

    def __init__(self, backend: Backend, logs: Path, kind: str) -> None:
        self._submitit = _package("submitit", "slurm")
        if kind == "slurm" and shutil.which("srun") is None:
            raise ConfigError(complaint("this machine has no SLURM (srun is not found)", "use --backend ray, or local"))
        self.gpus = 1.0 if backend.gpus is None else backend.gpus
        self._executor = self._submitit.AutoExecutor(folder=logs, cluster=kind)
        asked: dict[str, Any] = {"cpus_per_task": backend.cpus, "gpus_per_node": math.ceil(self.gpus), "name": "msft"}
        given = {key: int(value) if value.isdecimal() else value for key, value in backend.options.items()}
        try:
            self._executor.update_parameters(**{**asked, **given})
        except (TypeError, NameError, ValueError, AssertionError) as error:  # how submitit says that it refuses one
            fix = "use the names and kinds of values of submitit, such as timeout_min=60 or slurm_partition=gpu"
            raise ConfigError(complaint(f"--backend-option: {in_a_line(error)}", fix)) from None
        self._running: set[Any] = set()

    def call(self, do: Callable[..., Any], *arguments: Any) -> Any:
        job = self._executor.submit(do, *arguments)
        self._running.add(job)
        try:
            return job.result()
        except self._submitit.core.utils.FailedJobError as error:
            raise RunError(str(error)) from error
        except self._submitit.core.utils.UncompletedJobError as error:
            raise LostError(str(error).partition("\n")[0]) from None
        finally:
            self._running.discard(job)

    def close(self) -> None:
        for job in list(self._running):
            job.cancel(check=False)


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        found = f"--backend {extra} needs the package {name}"
        raise ConfigError(complaint(found, f"pip install 'msft[{extra}]'")) from None
