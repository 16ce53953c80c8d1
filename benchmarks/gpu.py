"""The benchmarks on a GPU, in one command of at most ten minutes; needs no files: models are random, rows made up.

    python benchmarks/gpu.py --out gpu                          # writes gpu/gpu.json and gpu/gpu.md; `make bench-gpu`
    python benchmarks/gpu.py --out gpu --wheels DIR             # on a machine without network that lacks packages
    python benchmarks/gpu.py --out gpu --parts determinism,kills --seconds kills=300     # the other parts' results stay
    python benchmarks/gpu.py --out cpu --device cpu --small random:1m --larger random:1m --batch-size 8 --steps 4 ...

The parts, in this order, each with so many seconds at most; what fails or is cut off is named, and the others go on:

- small, larger, full: a step of ours, then of TRL in its legal settings (trl_steps.py): SmolLM2-135M with 64 rows, a
  Llama of 1.2 billion parameters with 256, SmolLM2-135M with 512. Model FLOPs utilisation: 6 x parameters outside
  embeddings and head x real tokens, and the head at trained positions, over the device's bf16 rate by its data sheet;
  the rate that the step's own products reach on this card (products.py) stands beside it.
- search: a whole search of twelve sets x 300 rows, 6 epochs, C = 3, 100 validation items each, and where its seconds
  went; with it the seconds of one evaluation, beside the training that it follows.
- generation: a new token of 64 rows, with a cache that grows and with a recorded step (generation.py).
- kills: a small run is killed at random moments and resumed, --jobs at a time. determinism: it runs twice. study: runs
  an hour.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGETS = {
    "small": 110, "larger": 120, "search": 105, "generation": 45, "kills": 100, "full": 60, "determinism": 45,
    "study": 75,
}  # fmt: skip
"""Seconds of each part, at most, in the order in which they are run."""


def install(wheels: Path, to: Path) -> None:
    """Makes the packages of a folder of wheels importable, here and in the processes that are started."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"--wheels {wheels}: there is no wheel in it")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target"]
    subprocess.run([*command, str(to), *files], check=True)
    sys.path.insert(0, str(to))
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(to), *([known] if known else [])])


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    parser.add_argument("--parts", default=",".join(BUDGETS), help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.5, help="of all together (default: %(default)s)")
    budgets = ", ".join(f"{name}={seconds}" for name, seconds in BUDGETS.items())
    parser.add_argument("--seconds", nargs="+", default=[], metavar="PART=N", help=f"at most (default: {budgets})")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels, installed into a temporary folder")
    parser.add_argument("--small", default="random:smollm2-135m", help="or a folder (default: %(default)s)")
    parser.add_argument("--larger", default="random:llama-1b", help="or a folder (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="of `small` (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=5, help="steps before timed ones (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="timed ones of `small` (default: %(default)s)")
    parser.add_argument("--only", help="contenders of the step parts, as `ours,padded:64` (default: see gpu_parts.py)")
    parser.add_argument("--jobs", type=int, default=4, help="runs of study and kills at a time (default: %(default)s)")
    sizes = "sets,rows,validation items,epochs,C"
    parser.add_argument("--search", default="12,300,100,6,3", help=f"{sizes} of the search (default: %(default)s)")
    parser.add_argument("--twice", default="4,150,25,2,1", help=f"{sizes} of the small runs (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: its own choice)")
    parser.add_argument("--peak-tflops", type=float, help="bf16 rate of the device, where its name does not tell")
    return parser


def main() -> None:
    began = time.perf_counter()
    given = options().parse_args()
    if unknown := set(given.parts.split(",")) - set(BUDGETS):
        raise SystemExit(f"--parts {','.join(sorted(unknown))}: the parts are {', '.join(BUDGETS)}")
    budgets = BUDGETS | {name: float(seconds) for name, _, seconds in (one.partition("=") for one in given.seconds)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started ends too
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", ignore_cleanup_errors=True) as scratch:
        if given.wheels:
            install(given.wheels, Path(scratch) / "site")
        from gpu_order import run_all  # after the wheels: msft needs some of them

        run_all(given, Path(scratch), began, budgets)


if __name__ == "__main__":
    main()
