"""Measurements other than scores. They do not change the training (design 1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from msft.core.vocabulary import Task
from msft.data.examples import Example
from msft.data.order import Cursor
from msft.engine.step import Stepper
from msft.forward.runtime import NotFiniteError, sequence_scores
from msft.snapshots.state import capture, restore

EPSILON = 1e-8
"""Keeps the relative decrease finite where the loss is 0 (DynamixSFT)."""


def lookahead(stepper: Stepper, batches: Mapping[Task, Sequence[Example]], learning_rate: float) -> dict[Task, float]:
    """How much one virtual step on each batch lowers its loss: the mean over examples of (pre - post) / pre.

    Without dropout. Weights, moments and random state are restored bit for bit; no gradients may be pending. NaN where
    a loss is NaN or infinite.
    """
    before = capture(stepper.weights, stepper.optimizer, Cursor(), device=None)
    rates = [group["lr"] for group in stepper.optimizer.param_groups]
    falls = {}
    for task, examples in batches.items():
        pre = stepper.backward(examples, None).examples
        if stepper.settings.virtual == "adam":
            stepper.update(learning_rate)
        else:
            _descend(stepper.weights, learning_rate)
            stepper.cast()
        try:
            post = sequence_scores(stepper.model, [[example] for example in examples], stepper.runtime).mean
            falls[task] = float(np.mean((pre - post) / (pre + EPSILON)))
        except NotFiniteError:
            falls[task] = float("nan")
        restore(stepper.weights, stepper.optimizer, before)
        stepper.cast()
    for group, rate in zip(stepper.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return falls


def _descend(weights: Mapping[str, Tensor], learning_rate: float) -> None:
    """A plain gradient step."""
    with torch.no_grad():
        for weight in weights.values():
            if weight.grad is not None:
                weight.sub_(weight.grad, alpha=learning_rate)
