from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from parallel_worker import CASES, FURTHER
from safetensors.torch import load_file

from msft.engine import parallel

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import scaling

pytestmark = pytest.mark.cpu("two processes need two cards: these are on the CPU")
WORKER = Path(__file__).with_name("parallel_worker.py")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def flat(told: Any, name: str = "") -> dict[str, float]:
    if isinstance(told, dict | list):
        pairs = told.items() if isinstance(told, dict) else enumerate(told)
        return {key: value for part, inner in pairs for key, value in flat(inner, f"{name}.{part}").items()}
    return {name: told}


def firm(told: dict[str, Any]) -> dict[str, float]:
    """Without the biases of keys, whose gradients are rounding only: a softmax does not depend on them."""
    return {name: value for name, value in flat(told).items() if "c_attn.bias" not in name}


def launch(results: Path, which: str, *launcher: str) -> list[dict[str, Any]]:
    """What each process told."""
    results.mkdir(parents=True)
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(source), str(WORKER.parent)]), "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, *launcher, str(WORKER), str(results / "models"), str(results), which]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(file.read_text()) for file in sorted(results.glob("rank*.json"))]


@dataclass(frozen=True)
class Told:
    """What one process and two told of a case, and where they wrote its model."""

    alone: dict[str, Any]
    first: dict[str, Any]
    second: dict[str, Any]
    finals: tuple[Path, Path]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Told]:
    """By case; all of one kind are in one launch."""
    launched: dict[str, tuple[dict[str, Any], ...]] = {}
    folder = tmp_path_factory.mktemp("parallel")

    def of(case: str) -> Told:
        which = "further" if case in FURTHER else "cases"
        one, two = folder / which / "one", folder / which / "two"
        if which not in launched:
            launched[which] = (*launch(one, which), *launch(two, which, *TWO))
        name = case.replace(" ", "_")
        alone, first, second = (told[case] for told in launched[which])
        return Told(alone, first, second, (one / name / "final", two / name / "final"))

    return of


def near_of(case: str, in_bf16: float) -> float:
    return 1e-5 if (CASES | FURTHER)[case].get("precision", "fp32") == "fp32" else in_bf16


EVERY = [*CASES, *(pytest.param(case, marks=pytest.mark.campaign) for case in FURTHER)]


@pytest.mark.parametrize("case", EVERY)
def test_two_processes_train_and_score_as_one_does(case: str, told: Callable[[str], Told]) -> None:
    """With masters, their gradients are summed here and not by DDP; other micro-batches round bf16 otherwise. Split
    weights are summed by FSDP2. Through the whole of it: clipping, look-ahead, averages, blends, TIES, the base read
    again, and cosines of gradients."""
    near, found = near_of(case, 0.06), told(case)
    first, second = found.first, found.second
    split = [told.get("split") for told in (first, second)]
    first, second = (
        {k: v for k, v in told.items() if k not in {"split", "sent", "traffic"}} for told in (first, second)
    )
    assert flat(first) == flat(second), "every process must see the same outcome"
    expected = dict(found.alone)
    replicated = first.pop("replicated"), expected.pop("replicated")
    assert (replicated[0] == 0) == (CASES | FURTHER)[case].get("shard", False)
    assert firm(first) == pytest.approx(firm(expected), rel=near, abs=max(near, 2e-6))
    if split[0] is not None and split[1] is not None:
        for part in split:
            assert part["own"] < 0.6 * part["all"] and part["read"] < 0.6 * part["all"], "no process holds all"
        assert split[0]["own"] + split[1]["own"] == split[0]["all"]


@pytest.mark.parametrize("case", EVERY)
def test_the_model_that_two_processes_write_is_the_one_that_one_process_writes(
    case: str, told: Callable[[str], Told]
) -> None:
    one, two = told(case).finals
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for file in one.glob("*.json"):
        written = [json.loads((folder / file.name).read_text()) for folder in (one, two)]
        for fields in written:
            fields.pop("base_model_name_or_path", None)
            fields["target_modules"] = sorted(fields.get("target_modules") or ())
        assert written[0] == written[1]
    (weights,) = one.glob("*.safetensors")
    expected, found = load_file(weights), load_file(two / weights.name)
    assert expected.keys() == found.keys()
    near = near_of(case, 0.1)
    for name, tensor in expected.items():
        if name.endswith("c_attn.bias"):
            continue
        assert found[name].dtype == tensor.dtype
        assert torch.allclose(found[name], tensor, atol=near)


@pytest.mark.parametrize("case", [case for case, settings in CASES.items() if settings.get("shard")])
def test_a_roll_back_sends_no_weights(case: str, told: Callable[[str], Told]) -> None:
    trained, rolled_back = told(case).first["sent"]
    assert trained > 1_000, "bytes: the gathered weights"
    assert rolled_back < 256, "bytes: at most whether the others have their parts"


@pytest.mark.parametrize(("case", "size"), [("split", 4), ("split mixed", 2), ("split checkpointing", 4)])
def test_a_micro_batch_sends_what_the_cost_model_says(case: str, size: int, told: Callable[[str], Told]) -> None:
    """benchmarks/scaling.py, on which docs/scaling.md rests: gathered, and summed in fp32."""
    everything, layer = told(case).first["split"]["all"], 2592
    model = scaling.Model("tiny", 2, layer, everything - 2 * layer)
    gathered, summed = scaling.traffic(model, size)
    traffic = told(case).first["traffic"]
    assert (traffic["_allgather_base_"], traffic["_reduce_scatter_base_"]) == (gathered, summed)
    assert sum(traffic.values()) - gathered - summed < 64, "bytes: the losses"


def test_a_mac_trains_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GPU is an accelerator, and nothing is tested there."""
    asked: list[bool] = []

    def state(*, cpu: bool, **_: Any) -> PartialState:
        asked.append(cpu)
        return PartialState(cpu=True)

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(parallel, "PartialState", state)
    assert parallel.Processes().device == torch.device("cpu") and asked == [True]
