"""Rows by their lengths, in steps of fixed sizes: the losses and gradients of the eager step, for each architecture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import architectures

from msft.core.errors import ModelError
from msft.engine.optimizers import make_optimizer
from msft.engine.static_step import StaticStepper
from msft.engine.step import Stepper
from msft.forward.runtime import Runtime
from msft.forward.shapes import choose
from msft.forward.token_rows import row_size
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.snapshots.state import trainable

pytestmark = pytest.mark.cpu("a small twin of each architecture is judged on the CPU, on any machine")
CPU = torch.device("cpu")
SAMPLE = {
    "llama": "lengths", "mistral": "lengths", "qwen2 (window)": "lengths", "qwen3": "lengths", "olmo3": "lengths",
    "gemma3_text": "lengths", "smollm3": "lengths", "granite": "lengths", "phi3": "lengths",
    "gpt2": "flat",  # its attention weights are dropped out in training
    "gemma2": "flat",  # its scores are capped
    "gpt_oss": "flat",  # its heads have sinks
    "lfm2": "padded",  # its convolutions would reach the row before
}  # fmt: skip


def given(name: str) -> str:
    """The layout of an architecture where lengths come first; asserts that the static step gives the eager one."""
    model = architectures.small(name)
    if isinstance(model, str):
        return model
    loss = TokenLoss(architectures._copy(model))
    try:
        layout = fitting_layout(loss, CPU, lengths=True)
    except ModelError as error:
        return str(error)
    if layout.rows != "lengths":
        return layout.rows
    examples = architectures._examples(1)
    settings = architectures.SETTINGS
    runtime = Runtime(device=CPU, max_tokens=60, layout="lengths")
    shapes = choose([np.array([row_size(example) for example in examples])], 8, 60)
    readings = []
    for static in (True, False):
        one = loss.train() if static else TokenLoss(architectures._copy(model)).train()
        optimizer = make_optimizer(trainable(one), settings)
        if static:
            stepper: Stepper = StaticStepper(one, optimizer, settings, runtime, None, shapes, [], graphs=False)
        else:
            plain = fitting_layout(one, CPU)
            alone = Runtime(device=CPU, max_tokens=60, layout=plain.rows, border=plain.border)
            stepper = Stepper(one, optimizer, settings, alone)
        found = stepper.backward(examples, None)
        gradients = {n: p.grad for n, p in one.model.named_parameters() if p.grad is not None}
        readings.append((found, gradients))
    (static_loss, mine), (eager_loss, theirs) = readings
    assert static_loss.examples == pytest.approx(eager_loss.examples, rel=2e-6, abs=2e-6), name
    assert mine.keys() == theirs.keys(), name
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for key, gradient in theirs.items():
        bound = 1e-5 * float(gradient.abs().max()) + 1e-7 * largest
        assert float((mine[key] - gradient).abs().max()) <= 2 * bound, (name, key)
    return "lengths"


@pytest.mark.parametrize("name", SAMPLE)
def test_a_static_step_gives_the_eager_one(name: str) -> None:
    assert given(name) == SAMPLE[name]


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_static_step_gives_the_eager_one_for_every_architecture() -> None:
    found = {name: given(name) for name in architectures.names()}
    by_lengths = sorted(name for name, layout in found.items() if layout == "lengths")
    print(len(by_lengths), "by lengths:", ", ".join(by_lengths))
    assert len(by_lengths) > 40
