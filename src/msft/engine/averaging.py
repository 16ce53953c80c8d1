"""The exponential moving average of the weights along the final path (`training.average`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from msft.core.averages import Averaging


class Average:
    """The mean of the weights that are trained, in fp32.

    After step t, mean <- mean + share(t) (weights - mean), with the share that `averaging` gives to step t. Training
    goes on from the weights themselves; evaluations and the final model use the mean (`in_place_of_weights`). `steps`,
    t, counts the steps along the final path: a roll-back restores it and the mean with the weights (`tensors`, `load`).
    `weights`: by name, those that the optimizer updates. `changed`: called where their values are exchanged.
    `in_place`: values are exchanged where they lie, because the model refers to that memory and not to the tensors.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        averaging: Averaging,
        changed: Callable[[], None] = lambda: None,
        *,
        in_place: bool = False,
    ) -> None:
        self.averaging = averaging
        self.steps = 0
        self._weights, self._changed, self._in_place = weights, changed, in_place
        self._mean = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Adds the weights after an optimizer step."""
        self.steps += 1
        weights = [weight.detach() for weight in self._weights.values()]
        torch._foreach_lerp_(list(self._mean.values()), weights, self.averaging.share(self.steps))

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Context in which the model computes with the mean; it must not be trained in it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            if self._in_place:
                kept = weight.clone()
                weight.copy_(self._mean[name])
                self._mean[name].copy_(kept)
            else:
                weight.data, self._mean[name] = self._mean[name], weight.data
        self._changed()

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
