"""Compiled layers, on a CPU: what scores is compiled once for all sizes; many sizes of training stay compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engine import tiny_engine, tiny_example, tiny_folder
from torch._dynamo.utils import counters

from msft.engine.static_step import StaticStepper, fitting
from msft.forward.batches import MicroBatch, collate
from msft.forward.runtime import sequence_scores
from msft.forward.token_rows import row
from msft.model import compiled
from msft.model.compiled import CompiledLayers
from msft.model.token_loss import TokenLoss

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler"),
]


def made(folder: Path) -> tuple[StaticStepper, TokenLoss, list[MicroBatch]]:
    engine, _ = tiny_engine(tiny_folder(folder / "model"), folder / "snapshots", lengths=True, precision="mixed")
    stepper, loss = engine._stepper, engine._stepper.model
    assert isinstance(stepper, StaticStepper) and isinstance(loss, TokenLoss)
    torch._dynamo.reset()
    counters.clear()
    random = np.random.default_rng(3)
    rows = [row([tiny_example(random)]) for _ in range(40)]
    many = fitting(rows, stepper._filled[-1].shape)
    batches = [collate(part, torch.device("cpu"), layout="lengths") for part in (many, many[:1], many[:2])]
    return stepper, loss, batches


def test_what_scores_is_compiled_once_for_all_sizes(tmp_path: Path) -> None:
    stepper, loss, batches = made(tmp_path)
    layers = CompiledLayers(loss, batches, learns=False)
    assert not layers.said
    compiled = counters["stats"]["unique_graphs"]
    random = np.random.default_rng(2)
    for count in range(1, 10):
        groups = [[tiny_example(random)] for _ in range(count)]
        plain = sequence_scores(loss, groups, stepper.runtime).nll
        with layers.on():
            found = sequence_scores(loss, groups, stepper.runtime).nll
        assert np.allclose(found, plain, rtol=0.05) and not np.array_equal(found, plain), "bf16, rounded otherwise"
    assert counters["stats"]["unique_graphs"] == compiled, "no further size was compiled"


def test_dropout_is_that_of_plain_layers(tmp_path: Path) -> None:
    """Else an adapter with dropout is never compiled: its gradients are those of other masks."""
    engine, _ = tiny_engine(
        tiny_folder(tmp_path / "model"), tmp_path / "run", lengths=True,
        peft={"r": 4, "lora_dropout": 0.3, "target_modules": "all-linear"},
    )  # fmt: skip
    loss = engine._stepper.model
    assert isinstance(loss, TokenLoss)
    for name, weight in engine._stepper.weights.items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    torch._dynamo.reset()
    random = np.random.default_rng(3)
    rows = sorted([row([tiny_example(random)]) for _ in range(30)], key=len)
    layers = CompiledLayers(loss, [collate(rows, torch.device("cpu"), layout="lengths")], learns=True)
    assert not layers.said


def test_what_was_compiled_for_models_that_are_gone_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of a study has other sizes."""
    monkeypatch.setattr(compiled, "SIZES", 4)
    torch._dynamo.reset()
    counters.clear()
    random = np.random.default_rng(3)
    folder = tiny_folder(tmp_path / "model")
    for number in range(7):
        engine, _ = tiny_engine(folder, tmp_path / str(number), lengths=True)
        loss = engine._stepper.model
        assert isinstance(loss, TokenLoss)
        rows = sorted([row([tiny_example(random)]) for _ in range(10 + number)], key=len)
        layers = CompiledLayers(loss, [collate(rows, torch.device("cpu"), layout="lengths")], learns=True)
        assert not layers.said


def test_sizes_beyond_torchs_limit_are_compiled(tmp_path: Path) -> None:
    stepper, loss, batches = made(tmp_path)
    layers = CompiledLayers(loss, batches[:1], learns=True)
    assert not layers.said
    random = np.random.default_rng(2)
    sizes = torch._dynamo.config.recompile_limit + 2
    before = counters["stats"]["unique_graphs"]
    with layers.on():
        for count in range(2, sizes + 2):
            groups = [[tiny_example(random)] for _ in range(count)]
            sequence_scores(loss, groups, stepper.runtime)
    assert counters["stats"]["unique_graphs"] >= before + sizes
