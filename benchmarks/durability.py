"""What durability and resuming cost: their share of a run's wall-clock.

    python benchmarks/durability.py                      # the quickstart
    python benchmarks/durability.py CONFIG.yaml --runs 3

Each run is a process of its own: memory that another left behind would change what fits into this one's. Three views of
them. Accounted: the time that training waits inside everything that exists for safety alone
(the trial snapshot, snapshots that are not durable yet, journal, sidecars and the manifest of the model, verification,
reading the journal back), summed in the thread that trains, which noise does not touch. Beside it: the seconds that the
writing thread was at work, wall-clock and processor; what of them slows the training down on a machine without an idle
core, no account can tell. Measured: the wall-clock of the run as it is against one that keeps snapshots in memory only
and syncs nothing; in turn, medians. Then the finished run is resumed, and what its recovery takes is added.

Shorter: `--set method.max_epochs=1`; a model that is small makes everything but the snapshots count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from unittest.mock import patch

from common import as_commands

from msft.cli.quickstart import CONFIG, model_folder
from msft.cli.quiet import quiet
from msft.config.reader import load
from msft.config.schema import Config
from msft.engine.progress import ScoreInfo, StepInfo
from msft.record.journal import Journal
from msft.run import session
from msft.snapshots.store import Store
from msft.snapshots.writer import Writer
from msft.system import files

Kind: TypeAlias = Literal["unsafe", "safe", "resume"]
"""A run without durability, one as it is, and the resuming of that one."""
SAFETY: tuple[tuple[Any, str], ...] = (
    (Store, "rehearse"), (Store, "put"), (Store, "persist"), (Store, "finish"), (Store, "prune"), (Store, "check"),
    (Store, "manifests"), (Store, "__init__"), (Store, "__exit__"),
    (Journal, "segment"), (Journal, "final"), (Journal, "create"), (Journal, "resume"),
    (files, "sync"), (files, "replace"),
    (session, "restore_derived"), (session, "final_is_whole"), (session, "discard_damaged"), (session, "check_room"),
)  # fmt: skip


class Silent:
    """Nobody watches."""

    def begin(self, *_: Any) -> None: ...
    def resumed(self, *_: Any, **__: Any) -> None: ...
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


def run(kind: Kind, config: Config) -> dict[str, Any]:
    """One run, or the resuming of a finished one, in this process: seconds, of which training waited, and for what."""
    spent = Counter[str]()
    worked: list[tuple[float, float]] = []
    with ExitStack() as stack:
        for watched in (without(),) if kind == "unsafe" else (accounted(spent), beside(worked)):
            stack.enter_context(watched)
        began = time.perf_counter()
        session.train(config, Silent(), resume=kind == "resume")
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "waits": spent.total(),
        "for": dict(spent.most_common()),
        "thread_wall": sum(wall for wall, _ in worked),
        "thread_processor": sum(processor for _, processor in worked),
    }


def in_its_own_process(kind: Kind, given: argparse.Namespace, output: Path) -> dict[str, Any]:
    result = output.with_name("result.json")
    options = [part for override in given.overrides for part in ("--set", override)]
    command = [sys.executable, __file__, str(given.config), *options, "--kind", kind, "--output", str(output)]
    subprocess.run([*command, "--out", str(result)], env=as_commands(os.environ), check=True)
    measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    parts = ", ".join(f"{label} {seconds:.2f}" for label, seconds in measured["for"].items() if seconds >= 0.01)
    waits = f"; waits {measured['waits']:.2f} s: {parts}" if parts else ""
    print(f"{kind}: {measured['seconds']:.2f} s{waits}", flush=True)
    return measured


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=CONFIG)
    parser.add_argument("--runs", type=int, default=1, help="of each kind (default: 1)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--kind", choices=get_args(Kind), help="this one only, in this process")
    parser.add_argument("--output", type=Path, help="its run's folder")
    return parser


def measure(given: argparse.Namespace) -> dict[Kind, list[dict[str, Any]]]:
    found: dict[Kind, list[dict[str, Any]]] = {kind: [] for kind in get_args(Kind)}
    with tempfile.TemporaryDirectory() as place:
        for number in range(given.runs):
            folder = Path(place) / str(number)
            folder.mkdir()
            # The one that goes first changes: the machine may be faster in one half of the time than in the other.
            for kind in ("unsafe", "safe") if number % 2 == 0 else ("safe", "unsafe"):
                found[kind].append(in_its_own_process(kind, given, folder / kind))
            found["resume"].append(in_its_own_process("resume", given, folder / "safe"))
            shutil.rmtree(folder)
    return found


def main() -> None:
    given = options().parse_args()
    if given.kind:
        quiet()
        model = [f"model.name_or_path={model_folder()}"] if given.config == CONFIG else []
        config = load(given.config, [*model, *given.overrides, f"output={given.output}"])
        given.out.write_text(json.dumps(run(given.kind, config)), encoding="utf-8")
        return
    found = measure(given)

    def median(kind: Kind, name: str) -> float:
        return statistics.median(one[name] for one in found[kind])

    whole, bare = median("safe", "seconds"), median("unsafe", "seconds")
    seconds = {
        "run": whole,
        "run without durability": bare,
        "training waits": median("safe", "waits"),
        "a resume's recovery": median("resume", "waits"),
        "the writing thread, wall-clock": median("safe", "thread_wall"),
        "the writing thread, processor": median("safe", "thread_processor"),
    }
    shares = {
        "accounted": (seconds["training waits"] + seconds["a resume's recovery"]) / whole,
        "measured": (whole - bare) / bare,
    }
    for name, value in seconds.items():
        print(f"{name:34}{value:9.2f} s{value / whole:9.2%} of the run")
    print(f"accounted: durability and a resume's recovery together {shares['accounted']:.2%} of the run's wall-clock")
    print(f"measured: the run against the one without durability {shares['measured']:+.1%}")
    if given.out:
        content = {"seconds": seconds, "shares": shares, "all": found}
        given.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
