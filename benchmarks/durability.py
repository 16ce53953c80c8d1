"""What durability and resuming cost: their share of a run's wall-clock.

    python benchmarks/durability.py                      # the quickstart
    python benchmarks/durability.py CONFIG.yaml --runs 3

Three views of the same runs. Accounted: the time that training waits inside everything that exists for safety alone
(the trial snapshot, snapshots that are not durable yet, journal, sidecars and the manifest of the model, verification,
reading the journal back), summed in the thread that trains, which noise does not touch. Beside it: the seconds that the
writing thread was at work, wall-clock and processor; what of them slows the training down on a machine without an idle
core, no account can tell. Measured: the wall-clock of the run as it is against one that keeps snapshots in memory only
and syncs nothing; in turn, medians. Then a finished run is resumed, and what its recovery takes is added.

Shorter: `--set method.horizon=1`; a model that is small makes everything but the snapshots count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msft import files, trainer
from msft.cli.quickstart import CONFIG, model_folder
from msft.cli.quiet import quiet
from msft.config.reader import load
from msft.config.schema import Config
from msft.engine.progress import ScoreInfo, StepInfo
from msft.journal import Journal
from msft.snapshots.store import Store
from msft.snapshots.writer import Writer

SAFETY: tuple[tuple[Any, str], ...] = (
    (Store, "rehearse"), (Store, "put"), (Store, "persist"), (Store, "finish"), (Store, "prune"), (Store, "check"),
    (Store, "manifests"), (Store, "__init__"), (Store, "__exit__"),
    (Journal, "segment"), (Journal, "final"), (Journal, "create"), (Journal, "resume"),
    (files, "sync"), (files, "replace"),
    (trainer, "restore_derived"), (trainer, "final_is_whole"), (trainer, "discard_damaged"), (trainer, "check_room"),
)  # fmt: skip


class Silent:
    """Nobody watches."""

    def begin(self, *_: Any) -> None: ...
    def segment(self, *_: Any) -> None: ...
    def outcome(self, *_: Any) -> None: ...
    def note(self, text: str) -> None: ...
    def progress(self, info: StepInfo | ScoreInfo) -> None: ...


@contextmanager
def accounted(spent: Counter[str]) -> Iterator[None]:
    """Adds to `spent` the seconds inside the outermost call of anything in SAFETY, in the thread that trains."""
    depth, training = 0, threading.current_thread()

    def timed(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **keywords: Any) -> Any:
            nonlocal depth
            if threading.current_thread() is not training:
                return call(*arguments, **keywords)
            depth, began = depth + 1, time.perf_counter()
            try:
                return call(*arguments, **keywords)
            finally:
                depth -= 1
                if depth == 0:
                    spent[label] += time.perf_counter() - began

        return around

    with ExitStack() as stack:
        for owner, name in SAFETY:
            found = vars(owner)[name]
            label = f"{owner.__name__.rpartition('.')[2]}.{name}"
            whole = isinstance(found, classmethod)
            made = classmethod(timed(label, found.__func__)) if whole else timed(label, found)
            stack.enter_context(patch.object(owner, name, made))
        yield


@contextmanager
def beside(worked: list[tuple[float, float]]) -> Iterator[None]:
    """Adds to `worked` the seconds, of wall-clock and of processor time, of every job of the writing thread."""
    do = Writer._do

    def timed(self: Writer, job: Callable[[], None]) -> None:
        began, at_work = time.perf_counter(), time.thread_time()
        do(self, job)
        worked.append((time.perf_counter() - began, time.thread_time() - at_work))

    with patch.object(Writer, "_do", timed):
        yield


@contextmanager
def without() -> Iterator[None]:
    """Snapshots in memory only, nothing synced, nothing tried out."""
    with (
        patch.object(os, "fsync", lambda descriptor: None),
        patch.object(Store, "_write", lambda self, number, state: None),
        patch.object(Store, "rehearse", lambda self, state: None),
    ):
        yield


def run(config: Config, *, resume: bool = False) -> float:
    began = time.perf_counter()
    trainer.train(config, Silent(), resume=resume)
    return time.perf_counter() - began


def show(title: str, spent: Counter[str]) -> None:
    parts = ", ".join(f"{label} {seconds:.2f}" for label, seconds in spent.most_common() if seconds >= 0.01)
    print(f"{title}, {spent.total():.2f} s: {parts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=CONFIG)
    parser.add_argument("--runs", type=int, default=1, help="of each kind (default: 1)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    quiet()
    model = [f"model.name_or_path={model_folder()}"] if arguments.config == CONFIG else []
    place = Path(tempfile.mkdtemp())
    config = load(arguments.config, [*model, *arguments.overrides, f"output={place / 'run'}"])
    safe, unsafe, shares, recoveries = list[float](), list[float](), list[float](), list[float]()
    works: list[tuple[float, float]] = []
    try:
        for _ in range(arguments.runs):
            with without():
                unsafe.append(run(config))
            shutil.rmtree(place / "run")
            spent = Counter[str]()
            worked: list[tuple[float, float]] = []
            with accounted(spent), beside(worked):
                safe.append(run(config))
            shares.append(spent.total())
            show("training waits", spent)
            works.append((sum(wall for wall, _ in worked), sum(processor for _, processor in worked)))
            again = Counter[str]()
            with accounted(again):
                run(config, resume=True)
            recoveries.append(again.total())
            show("a resume's recovery", again)
            shutil.rmtree(place / "run")
    finally:
        shutil.rmtree(place)
    found = {
        "run": statistics.median(safe),
        "run without durability": statistics.median(unsafe),
        "training waits": statistics.median(shares),
        "a resume's recovery": statistics.median(recoveries),
        "the writing thread, wall-clock": statistics.median(wall for wall, _ in works),
        "the writing thread, processor": statistics.median(processor for _, processor in works),
    }
    whole, bare = found["run"], found["run without durability"]
    accounted_share = (found["training waits"] + found["a resume's recovery"]) / whole
    for name, seconds in found.items():
        print(f"{name:34}{seconds:9.2f} s{seconds / whole:9.2%} of the run")
    print(f"accounted: durability and a resume's recovery together {accounted_share:.2%} of the run's wall-clock")
    print(f"measured: the run against the one without durability {(whole - bare) / bare:+.1%}")
    if arguments.out:
        shares_of = {"accounted": accounted_share, "measured": (whole - bare) / bare}
        content = {"seconds": found, "shares": shares_of, "all": {"safe": safe, "unsafe": unsafe, "waits": shares}}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
