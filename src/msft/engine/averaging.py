"""The exponential moving average of the weights along the final path (`training.average`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from msft.snapshots.state import trainable

WarmUp: TypeAlias = Literal["none", "debiased", "ramp"]
"""How much the first steps count: each as any other, so that the base model fades with the window; as if the average
had no beginning (the base model does not count); or a decay of at most (1 + t) / (10 + t) at step t."""


class Average:
    """The mean of a model's trainable weights over about the last `window` optimizer steps, in fp32.

    After step t, mean <- mean + share(t) (weights - mean). Training goes on from the weights themselves; evaluations
    and the final model use the mean (`in_place_of_weights`). `steps`, t, counts the steps along the final path: a
    roll-back restores it and the mean with the weights (`tensors`, `load`).
    """

    def __init__(self, model: nn.Module, window: float, warm_up: WarmUp) -> None:
        self.window, self.warm_up = max(1.0, window), warm_up
        self.steps = 0
        self._weights = trainable(model)
        self._mean = {name: weight.detach().clone() for name, weight in self._weights.items()}

    def share(self, step: int) -> float:
        """The weight with which the model after optimizer step `step` (from 1) enters the mean."""
        plain = 1 / self.window
        if self.warm_up == "debiased":
            return float(plain / (1 - (1 - plain) ** step))
        if self.warm_up == "ramp":
            return max(plain, 1 - (1 + step) / (10 + step))
        return plain

    def age(self, steps: int) -> float:
        """The mean age, in steps, of the weights that the mean after `steps` steps is made of."""
        age = 0.0
        for step in range(1, steps + 1):
            age = (1 - self.share(step)) * (age + 1)
        return age

    @torch.no_grad()
    def update(self) -> None:
        """Adds the weights after an optimizer step."""
        self.steps += 1
        weights = [weight.detach() for weight in self._weights.values()]
        torch._foreach_lerp_(list(self._mean.values()), weights, self.share(self.steps))

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Context in which the model computes with the mean; it must not be trained in it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            weight.data, self._mean[name] = self._mean[name], weight.data

    def tensors(self) -> dict[str, Tensor]:
        """`mean/<name>` of each trainable weight, and `mean_steps`, for a snapshot; not copies."""
        mean = {f"mean/{name}": tensor for name, tensor in self._mean.items()}
        return mean | {"mean_steps": torch.tensor(float(self.steps))}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the mean of a snapshot; of the base model, whose snapshot has none, the mean is the base model."""
        self.steps = int(tensors.get("mean_steps", torch.tensor(0.0)))
        for name, mean in self._mean.items():
            mean.copy_(tensors.get(f"mean/{name}", tensors[f"weight/{name}"]))
