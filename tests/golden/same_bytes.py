"""Proves that a refactoring changed nothing: a tiny run of each method under two source trees, compared byte for byte.

    python tests/golden/same_bytes.py OLD_SRC NEW_SRC

Each argument is a `src` folder (`git worktree add ../old REV` makes one). A run is `python -m msft train`, so that the
trees may differ in everything but the command line. Compared are the journal's records, without the version, the
environment and the hash chain, which follows from them; the final weights; and the summary without seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
RUNS = {
    "msft": "",
    "msft_release": ", preset: release, max_rollouts: 3",
    "msft_tick": ", score_excluded: tick",
    "msft_candidates": ", score_excluded: tick",
    "sft": "",
    "continual": "",
    "sro": "",
    "soft_sro": "",
    "one_pass": "",
    "dynamix": "",
    "ies": "",
    "placebo": "",
}
"""Name of the run, whose method is what comes before a suffix, and what is added to its method section; where that does
not say, `score_excluded: rollout`, the default of version 0.1. In version 0.1, a tick was no candidate for the final
model: `msft_tick` is a journal of then, `msft_candidates` one of now."""
HORIZON = {"continual": 1, "ies": 7}


def main() -> None:
    """Prints one line a run; exit code 1 where two differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", help="names of runs, separated by commas")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(RUNS)
    different = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in names:
            found = [run(tree.resolve(), make(folder, name, which, tree)) for which, tree in
                     (("old", arguments.old), ("new", arguments.new))]  # fmt: skip
            changed = differences(*found)
            print(f"{name}: {'the same bytes' if not changed else '; '.join(changed)}", flush=True)
            different += changed
    sys.exit(bool(different))


def make(folder: Path, name: str, which: str, tree: Path) -> Path:
    """The configuration of a run, with model and data beside it."""
    sys.path[:0] = [str(TESTS / "cli"), str(TESTS / "data"), str(TESTS)]
    from job import make_job

    method = name if name in ("soft_sro", "one_pass") else name.split("_")[0]
    # The key was `horizon` before version 0.2.
    key = "max_epochs" if any("max_epochs" in p.read_text() for p in tree.glob("msft/config/*.py")) else "horizon"
    more = f", {key}: {HORIZON.get(method, 4)}{RUNS[name]}"
    if "score_excluded" not in more:
        more += ", score_excluded: rollout"
    if "eval_every" not in more and method == "msft":
        more += ", budget: 2, smooth: 1"
    return make_job(folder, method, more, output=f"{which}-{name}")


def run(tree: Path, config: Path) -> Path:
    """Trains; the run folder."""
    environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "msft", "train", str(config)], env=environment, check=True, capture_output=True
    )  # fmt: skip
    return config.with_suffix("")


def differences(old: Path, new: Path) -> list[str]:
    """What differs between two run folders, in words."""
    found = []
    for what in (records, weights, summary):
        was, now = what(old), what(new)
        if was != now:
            found.append(f"{what.__name__} differ" + first(was, now))
    return found


def records(folder: Path) -> Any:
    """The journal's bodies; of the header, what does not follow from when and where it was written."""
    bodies = [json.loads(line)["body"] for line in (folder / "journal.jsonl").read_text().splitlines()]
    for key in ("msft", "environment"):
        bodies[0].pop(key)
    return bodies


def weights(folder: Path) -> Any:
    """SHA-256 of each file of the final model, but for what says when it was made."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "final").iterdir())
        if path.suffix in (".safetensors", ".json", ".jinja") and path.name != "MANIFEST.json"
    }


def summary(folder: Path) -> Any:
    """summary.json without seconds and version."""
    content = json.loads((folder / "summary.json").read_text())
    return {key: value for key, value in content.items() if key not in ("seconds", "msft")}


def first(was: Any, now: Any, path: str = "") -> str:
    """Where two JSON values differ first."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in was.keys() | now.keys():
            if was.get(key) != now.get(key):
                return first(was.get(key), now.get(key), f"{path}.{key}")
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, other) in enumerate(zip(was, now, strict=True)):
            if one != other:
                return first(one, other, f"{path}[{i}]")
    return f" at {path}: {str(was)[:60]} became {str(now)[:60]}"


if __name__ == "__main__":
    main()
