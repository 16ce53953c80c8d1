"""fp32 weights of a model that computes with bf16 copies of them (`model.precision: mixed`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from msft.model.precision import narrow
from msft.snapshots.state import host_array, trainable


class Masters:
    """The fp32 masters of a model's trainable parameters, which become bf16 copies of them.

    Optimizer, snapshots, averages and the final model hold masters, under the parameters' names; a bf16 weight would
    not change by the small steps of fine-tuning. Per trainable parameter: 4 bytes for the master, 8 for Adam's moments,
    2 for the copy, 4 for the gradient summed over micro-batches, and 2 for that of one micro-batch. Frozen parameters
    (the base of an adapter) become bf16 and have no master.

    `on_host`: masters, moments and averages are in the memory of the host, where the optimizer updates them; gradients
    are summed on the device, and go there once a step.
    """

    averages = False
    """Gradients of several processes are summed in fp32 by the step, without DDP."""
    in_parts = False

    def __init__(self, model: nn.Module, *, on_host: bool = False) -> None:
        copies = trainable(model)
        self.on_host = on_host
        self.tensors: dict[str, Tensor] = {
            name: _pinned(copy) if on_host else copy.detach().to(torch.float32, copy=True)
            for name, copy in copies.items()
        }
        narrow(model)
        self._masters, self._copies = list(self.tensors.values()), list(copies.values())
        self._gradients: list[Tensor | None] = [None] * len(copies)
        self._arrived: list[Tensor | None] = [None] * len(copies)
        # What has the gradient of a master as `grad` while it is summed.
        self._sums: list[Any] = [_Sum() for _ in copies] if on_host else self._masters

    @torch.no_grad()
    def collect(self) -> None:
        """Adds the gradients of the copies, of one micro-batch, to those of the masters, in fp32."""
        into, first, more, rest = [], [], [], []
        for place, (total, copy) in enumerate(zip(self._sums, self._copies, strict=True)):
            if copy.grad is None:
                continue
            if total.grad is not None:
                more.append(total.grad)
                rest.append(copy.grad)
                continue
            total.grad = gradient = self._array(place)
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
            gradient = self._gradients[place] = torch.empty_like(self._copies[place], dtype=torch.float32)
        return gradient

    @torch.no_grad()
    def deliver(self) -> None:
        """Once all gradients of a step are summed: brings them to the masters, where these are on the host."""
        if not self.on_host:
            return
        for place, (master, total) in enumerate(zip(self._masters, self._sums, strict=True)):
            if total.grad is None:
                continue
            if master.grad is not None:
                master.grad.add_(total.grad.to(master.device))
                continue
            if (arrived := self._arrived[place]) is None:
                arrived = self._arrived[place] = _pinned(total.grad)
            master.grad = arrived.copy_(total.grad, non_blocking=True)
        self.detach()
        self._wait()

    def _wait(self) -> None:
        """Until copies between host and device are complete."""
        if any(copy.is_cuda for copy in self._copies):
            torch.cuda.synchronize()

    @property
    def pending(self) -> bool:
        """Whether gradients have been collected since the last update."""
        return any(total.grad is not None for total in self._sums)

    def attach(self) -> None:
        """Makes the arrays of the gradients, which a recorded pass has written, those of the masters."""
        for total, gradient in zip(self._sums, self._gradients, strict=True):
            total.grad = gradient

    def detach(self) -> None:
        """As if no gradient had been collected; the arrays stay."""
        for total in self._sums:
            total.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of all masters, for a sum over processes; of those without one, zeros."""
        for place, total in enumerate(self._sums):
            if total.grad is None:
                total.grad = self._array(place).zero_()
        return [total.grad for total in self._sums if total.grad is not None]

    @torch.no_grad()
    def cast(self) -> None:
        """Writes the masters to the copies."""
        if not self.on_host:
            torch._foreach_copy_([copy.detach() for copy in self._copies], self._masters)
            return
        for copy, master in zip(self._copies, self._masters, strict=True):
            copy.detach().copy_(master, non_blocking=True)
        self._wait()

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


class _Sum:
    """Has the gradient of a master on the host while it is summed on the device."""

    grad: Tensor | None = None


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in fp32 in the memory of the host, from which a GPU copies without help where there is one."""
    return host_array(tensor, torch.float32).copy_(tensor.detach())


def weights_of(model: nn.Module, held: Held | None) -> Mapping[str, Tensor]:
    """The weights that are trained, by name: what is held for them, else the model's own parameters."""
    return trainable(model) if held is None else held.tensors
