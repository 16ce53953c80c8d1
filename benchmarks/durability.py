"""What durability and resuming cost: their share of a run's wall-clock.

    python benchmarks/durability.py                      # the quickstart
    python benchmarks/durability.py CONFIG.yaml --runs 3

Two views of the same runs. Accounted: the time inside everything that exists for safety alone (the trial snapshot,
writing and syncing snapshots, journal, sidecars and the manifest of the model, verification, reading the journal
back), summed in the process itself, which noise does not touch. Measured: the wall-clock of the run as it is against
one that keeps snapshots in memory only and syncs nothing; in turn, medians. Then a finished run is resumed, and what
its recovery takes is added.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
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

SAFETY: tuple[tuple[Any, str], ...] = (
    (Store, "rehearse"), (Store, "_write"), (Store, "check"), (Store, "prune"), (Store, "manifests"),
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
def accounted(spent: list[float]) -> Iterator[None]:
    """Adds to `spent` the seconds inside the outermost call of anything in SAFETY."""
    depth = 0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **keywords: Any) -> Any:
            nonlocal depth
            depth, began = depth + 1, time.perf_counter()
            try:
                return call(*arguments, **keywords)
            finally:
                depth -= 1
                if depth == 0:
                    spent.append(time.perf_counter() - began)

        return around

    with ExitStack() as stack:
        for owner, name in SAFETY:
            found = vars(owner)[name]
            made = classmethod(timed(found.__func__)) if isinstance(found, classmethod) else timed(found)
            stack.enter_context(patch.object(owner, name, made))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=CONFIG)
    parser.add_argument("--runs", type=int, default=1, help="of each kind (default: 1)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    arguments = parser.parse_args()
    quiet()
    model = [f"model.name_or_path={model_folder()}"] if arguments.config == CONFIG else []
    place = Path(tempfile.mkdtemp())
    config = load(arguments.config, [*model, *arguments.overrides, f"output={place / 'run'}"])
    safe, unsafe, shares, recoveries = [], [], [], []
    try:
        for _ in range(arguments.runs):
            with without():
                unsafe.append(run(config))
            shutil.rmtree(place / "run")
            spent: list[float] = []
            with accounted(spent):
                safe.append(run(config))
            shares.append(sum(spent))
            again: list[float] = []
            with accounted(again):
                run(config, resume=True)
            recoveries.append(sum(again))
            shutil.rmtree(place / "run")
    finally:
        shutil.rmtree(place)
    whole, bare = statistics.median(safe), statistics.median(unsafe)
    durability, recovery = statistics.median(shares), statistics.median(recoveries)
    print(f"run: {whole:.1f} s; without durability: {bare:.1f} s; measured difference {(whole - bare) / bare:+.1%}")
    print(f"accounted: durability {durability:.2f} s, a resume's recovery {recovery:.2f} s")
    print(f"together {(durability + recovery) / whole:.2%} of the run's wall-clock")


if __name__ == "__main__":
    main()
