"""fp32 weights of a model that computes with bf16 copies of them (`model.precision: mixed`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from msft.model.precision import narrow
from msft.snapshots.state import trainable


class Masters:
    """The fp32 masters of a model's trainable parameters, which become bf16 copies of them.

    Optimizer, snapshots, averages and the final model hold masters, under the parameters' names; a bf16 weight would
    not change by the small steps of fine-tuning. Per trainable parameter: 4 bytes for the master, 8 for Adam's moments,
    2 for the copy, 4 for the gradient summed over micro-batches, and 2 for that of one micro-batch. Frozen parameters
    (the base of an adapter) become bf16 and have no master.
    """

    averages = False
    """Gradients of several processes are summed in fp32 by the step, without DDP."""
    in_parts = False

    def __init__(self, model: nn.Module) -> None:
        copies = trainable(model)
        self.tensors: dict[str, Tensor] = {
            name: copy.detach().to(torch.float32, copy=True) for name, copy in copies.items()
        }
        narrow(model)
        self._masters, self._copies = list(self.tensors.values()), list(copies.values())
        self._gradients: list[Tensor | None] = [None] * len(copies)

    @torch.no_grad()
    def collect(self) -> None:
        """Adds the gradients of the copies, of one micro-batch, to those of the masters, in fp32."""
        into, first, more, rest = [], [], [], []
        for place, (master, copy) in enumerate(zip(self._masters, self._copies, strict=True)):
            if copy.grad is None:
                continue
            if master.grad is not None:
                more.append(master.grad)
                rest.append(copy.grad)
                continue
            master.grad = gradient = self._array(place)
            into.append(gradient)
            first.append(copy.grad)
        if into:
            torch._foreach_copy_(into, first)
        if more:
            torch._foreach_add_(more, rest)
        for copy in self._copies:
            copy.grad = None

    def _array(self, place: int) -> Tensor:
        """The array of a master's gradient, which stays where it is."""
        if (gradient := self._gradients[place]) is None:
            gradient = self._gradients[place] = torch.empty_like(self._masters[place])
        return gradient

    @property
    def pending(self) -> bool:
        """Whether gradients have been collected since the last update."""
        return any(master.grad is not None for master in self._masters)

    def attach(self) -> None:
        """Makes the arrays of the gradients, which a recorded pass has written, those of the masters."""
        for master, gradient in zip(self._masters, self._gradients, strict=True):
            master.grad = gradient

    def detach(self) -> None:
        """As if no gradient had been collected; the arrays stay."""
        for master in self._masters:
            master.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of all masters, for a sum over processes; of those without one, zeros."""
        for place, master in enumerate(self._masters):
            if master.grad is None:
                master.grad = self._array(place).zero_()
        return [master.grad for master in self._masters if master.grad is not None]

    @torch.no_grad()
    def cast(self) -> None:
        """Writes the masters to the copies."""
        torch._foreach_copy_([copy.detach() for copy in self._copies], self._masters)

    def norm(self, own: Tensor) -> Tensor:
        """The norm of all gradients is that of this process's, which has all."""
        return own

    @contextmanager
    def stored(self, dtype: torch.dtype) -> Iterator[None]:
        """Context in which the model's trainable parameters are the masters in `dtype`, for writing the model."""
        copies = [copy.data for copy in self._copies]
        try:
            for copy, master in zip(self._copies, self._masters, strict=True):
                copy.data = master.to(dtype)
            yield
        finally:
            for copy, data in zip(self._copies, copies, strict=True):
                copy.data = data


class Held(Protocol):
    """What the optimizer updates, where that is not the model's own parameters: `Masters`, or `Shards` of a model that
    is split over the processes."""

    tensors: dict[str, Tensor]
    """By the parameters' names."""
    averages: bool
    """Whether gradients come as their mean over the processes."""
    in_parts: bool
    """Whether each process has other rows of the tensors."""

    def collect(self) -> None:
        """Adds the gradients of a micro-batch to those of the tensors."""

    def cast(self) -> None:
        """Makes the model compute with changed tensors."""

    def norm(self, own: Tensor) -> Tensor:
        """The norm of all gradients, from that of this process's."""


def weights_of(model: nn.Module, held: Held | None) -> Mapping[str, Tensor]:
    """The weights that are trained, by name: what is held for them, else the model's own parameters."""
    return trainable(model) if held is None else held.tensors
