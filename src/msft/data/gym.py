"""The rows of reasoning-gym tasks, generated in a separate process.

Some tasks draw from sets of strings, whose order differs between Python processes, so that a resumed run would get
other rows. The separate process has a fixed hash seed and always generates the same rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any


def generate(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """A mapping with one key: `rows`, the generated rows in order; `tasks`, the names of all tasks, if this is not one;
    or `refused`, why the task refused its options. Raises ImportError if reasoning-gym is not installed."""
    # -P: else a file of the working directory, such as random.py, would be imported in place of a library's.
    child = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps({"task": task, "options": options}),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return {"refused": reason}
    found: dict[str, Any] = json.loads(child.stdout)
    if "missing" in found:
        raise ImportError(found["missing"])
    return found


def _answer(task: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        return {"missing": str(error)}
    if task not in DATASETS:
        return {"tasks": sorted(DATASETS)}
    try:
        return {"rows": list(reasoning_gym.create_dataset(task, **options))}
    except Exception as error:  # tasks raise various errors for wrong options
        return {"refused": f"{type(error).__name__}: {str(error)[:200]}"}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = _answer(asked["task"], asked["options"])
    json.dump(answer, sys.stdout, default=str)
