"""Capturing and restoring the state of training (design 3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from msft.data.order import Cursor

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Adam's state of each parameter after its first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that a segment starts from: weights, optimizer moments and the position in the data."""

    tensors: Mapping[str, Tensor]
    """`weight/<name>` of each trainable parameter, tied ones once; `exp_avg/<name>`, `exp_avg_sq/<name>` and
    `step/<name>` of each that the optimizer has updated; with averaged weights also `mean/<name>` and `mean_steps`."""
    cursor: Cursor = field(default_factory=Cursor)

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    @property
    def on_gpu(self) -> bool:
        """Whether it takes memory of a GPU."""
        return any(tensor.is_cuda for tensor in self.tensors.values())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name; a tied one appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copied(weights: Mapping[str, Tensor], *, device: torch.device | str | None = "cpu") -> dict[str, Tensor]:
    """Copies of the weights as a State names them; `device=None` leaves them where they are."""
    return {f"weight/{name}": _copy(weight, device) for name, weight in weights.items()}


def capture(
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    cursor: Cursor,
    *,
    more: Mapping[str, Tensor] = MappingProxyType({}),
    device: torch.device | str | None = "cpu",
) -> State:
    """A copy of the weights and moments, and of `more` tensors; `device=None` leaves them where they are.

    `weights`: by name, those that the optimizer updates.
    """
    tensors = copied(weights, device=device) | {name: _copy(tensor, device) for name, tensor in more.items()}
    for name, parameter in weights.items():
        # `.get`: the optimizer's state is a defaultdict, in which `[]` would add an entry.
        for moment, value in optimizer.state.get(parameter, {}).items():
            assert moment in MOMENTS, f"the optimizer keeps {moment}, which snapshots do not hold"
            tensors[f"{moment}/{name}"] = _copy(value, device)
    if any(weight.is_cuda for weight in weights.values()):
        torch.cuda.synchronize()
    return State(tensors=tensors, cursor=cursor)


def restore(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: State) -> None:
    """Restores weights and optimizer in place; a parameter without moments in the state has none afterwards."""
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(state.tensors[f"weight/{name}"])
            parameter.grad = None
            if f"step/{name}" not in state.tensors:
                optimizer.state.pop(parameter, None)
                continue
            if parameter not in optimizer.state:
                optimizer.state[parameter] = _empty_moments(optimizer, parameter)
            kept: dict[str, Any] = optimizer.state[parameter]
            for moment in MOMENTS:
                kept[moment].copy_(state.tensors[f"{moment}/{name}"])


def _empty_moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    fused = any(group["fused"] for group in optimizer.param_groups)
    return {
        "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        # Fused Adam keeps its step count on the parameter's device, plain Adam on the CPU.
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu"),
    }


def _copy(tensor: Tensor, device: torch.device | str | None) -> Tensor:
    """A copy; from a GPU to the host into pinned memory, which takes a fraction of the time, and complete only after
    `torch.cuda.synchronize`."""
    if tensor.is_cuda and device is not None and torch.device(device).type == "cpu":
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor.detach(), non_blocking=True)
    return tensor.detach().to(device=device or tensor.device, copy=True, memory_format=torch.contiguous_format)
