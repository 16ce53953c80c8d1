"""Gradient conflict: cosines between the gradients of sub-datasets at a snapshot (the paper's Figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from msft.core.vocabulary import Task
from msft.data.examples import Example
from msft.engine.step import Stepper


def cosines(stepper: Stepper, batches: Mapping[Task, Sequence[Example]]) -> dict[tuple[Task, Task], float]:
    """The cosine between the gradients of the mean losses of each pair of sub-datasets, without dropout or update.

    0 where a gradient is zero. Memory: one gradient per sub-dataset.
    """
    parameters = [p for group in stepper.optimizer.param_groups for p in group["params"]]
    gradients = {}
    for task, examples in batches.items():
        stepper.optimizer.zero_grad(set_to_none=True)
        stepper.backward(examples, None)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        norm = flat.norm() if stepper.held is None else stepper.held.norm(flat.norm())
        gradients[task] = flat / norm.clamp_min(1e-12)
    stepper.optimizer.zero_grad(set_to_none=True)
    tasks = list(gradients)
    stacked = torch.stack(list(gradients.values()))
    products = (stacked @ stacked.T).double().cpu().numpy()
    if stepper.held is not None and stepper.held.in_parts:
        products = stepper.runtime.total(products)
    return {
        (one, two): float(products[number, tasks.index(two)])
        for number, one in enumerate(tasks)
        for two in tasks[number + 1 :]
    }
