from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_engine import tiny_folder

WORKER = Path(__file__).with_name("parallel_worker.py")


def flat(told: Any, name: str = "") -> dict[str, float]:
    if isinstance(told, dict | list):
        pairs = told.items() if isinstance(told, dict) else enumerate(told)
        return {key: value for part, inner in pairs for key, value in flat(inner, f"{name}.{part}").items()}
    return {name: told}


def launch(folder: Path, results: Path, precision: str, *launcher: str, more: str = "{}") -> None:
    results.mkdir()
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(source), str(WORKER.parent)]), "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, *launcher, str(WORKER), str(folder), str(results), precision, more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.cpu("two processes need two cards: these are on the CPU")
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("mixed", 0.03)])
def test_two_processes_train_and_score_as_one_does(tmp_path: Path, precision: str, near: float) -> None:
    """With masters, their gradients are summed here and not by DDP; other micro-batches round bf16 otherwise."""
    folder = tiny_folder(tmp_path / "model")
    launch(folder, tmp_path / "one", precision)
    launch(folder, tmp_path / "two", precision, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    alone = flat(json.loads((tmp_path / "one" / "rank0.json").read_text()))
    first, second = (flat(json.loads((tmp_path / "two" / f"rank{rank}.json").read_text())) for rank in (0, 1))
    assert first == second, "every process must see the same outcome"
    assert first == pytest.approx(alone, rel=near, abs=max(near / 3, 1e-6))
    assert (tmp_path / "two" / "final" / "model.safetensors").is_file()


QUANTISED = {"peft": {"r": 2}, "quantize": "nf4"}


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("precision", "near", "more"),
    [
        ("fp32", 1e-5, QUANTISED), ("mixed", 0.03, QUANTISED), ("mixed", 0.03, {"offload_optimizer": True}),
        ("mixed", 0.03, {"optimizer": "adamw_8bit"}),
    ],
)  # fmt: skip
def test_small_memory_in_two_processes(tmp_path: Path, precision: str, near: float, more: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes")
    folder, given = tiny_folder(tmp_path / "model", tied=False), json.dumps(more)
    launch(folder, tmp_path / "one", precision, more=given)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    launch(folder, tmp_path / "two", precision, *launcher, more=given)
    alone = flat(json.loads((tmp_path / "one" / "rank0.json").read_text()))
    first, second = (flat(json.loads((tmp_path / "two" / f"rank{rank}.json").read_text())) for rank in (0, 1))
    assert first == second, "every process must see the same outcome"
    assert first == pytest.approx(alone, rel=near, abs=max(near / 3, 1e-6))
