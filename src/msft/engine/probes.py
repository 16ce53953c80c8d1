"""Measurements other than scores. They do not change the training (design 1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from msft.core.vocabulary import Task
from msft.data.examples import Example
from msft.data.order import Cursor
from msft.engine.step import Stepper
from msft.forward.runtime import NotFiniteError, sequence_scores
from msft.snapshots.state import capture, restore, trainable

EPSILON = 1e-8
"""Keeps the relative decrease finite where the loss is 0 (DynamixSFT)."""


def lookahead(
    model: nn.Module, stepper: Stepper, batches: Mapping[Task, Sequence[Example]], learning_rate: float
) -> dict[Task, float]:
    """How much one virtual step on each batch lowers its loss: the mean over examples of (pre - post) / pre.

    Without dropout. Weights, moments and random state are restored bit for bit; no gradients may be pending. NaN where
    a loss is NaN or infinite. `model`: the unwrapped model that `stepper` updates.
    """
    before = capture(model, stepper.optimizer, Cursor(), device=None)
    rates = [group["lr"] for group in stepper.optimizer.param_groups]
    falls = {}
    for task, examples in batches.items():
        pre = stepper.backward(examples, None).examples
        if stepper.settings.virtual == "adam":
            stepper.update(learning_rate)
        else:
            _descend(model, learning_rate)
        try:
            post = sequence_scores(stepper.model, [[example] for example in examples], stepper.runtime).mean
            falls[task] = float(np.mean((pre - post) / (pre + EPSILON)))
        except NotFiniteError:
            falls[task] = float("nan")
        restore(model, stepper.optimizer, before)
    for group, rate in zip(stepper.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return falls


def _descend(model: nn.Module, learning_rate: float) -> None:
    """A plain gradient step."""
    with torch.no_grad():
        for parameter in trainable(model).values():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=learning_rate)
