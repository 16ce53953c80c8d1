"""Capturing and restoring the state of training (design 3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from msft.data.order import Cursor

MOMENTS = (
    "exp_avg", "exp_avg_sq", "step", "momentum_buffer", "row_var", "col_var", "variance",
    "state1", "state2", "absmax1", "absmax2",
)  # fmt: skip
"""What optimizers keep of a parameter after its first step: Adam the first three, Muon the fourth, Adafactor a step and
three more, Adam in 8 bits a step, its moments and their scales."""
TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""What Adam in 8 bits keeps beside each moment, the same for all parameters: the values of its 256 numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that a segment starts from: weights, optimizer moments and the position in the data."""

    tensors: Mapping[str, Tensor]
    """`weight/<name>` of each trainable parameter, tied ones once; `<moment>/<name>` of each that the optimizer has
    updated, such as `exp_avg/<name>`; with averaged weights also `mean/<name>` and `mean_steps`."""
    cursor: Cursor = field(default_factory=Cursor)
    pinned: bool = False
    """Whether it lies in memory of the host that a GPU copies to by itself."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def taken(self) -> int:
        """Bytes of memory that it takes where it is."""
        sizes = (tensor.nbytes for tensor in self.tensors.values())
        return sum(map(pinned_bytes, sizes)) if self.pinned else sum(sizes)

    @property
    def on_gpu(self) -> bool:
        """Whether it takes memory of a GPU."""
        return any(tensor.is_cuda for tensor in self.tensors.values())


def pinned_bytes(size: int) -> int:
    """What a tensor of so many bytes takes of pinned memory, which torch takes by powers of two."""
    return 1 << (size - 1).bit_length() if size else 0


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
            if moment in TABLES:
                continue
            assert moment in MOMENTS, f"the optimizer keeps {moment}, which snapshots do not hold"
            number = value if isinstance(value, Tensor) else torch.tensor(float(value))
            tensors[f"{moment}/{name}"] = _copy(number, device)
    from_gpu = any(weight.is_cuda for weight in weights.values())
    if from_gpu:
        torch.cuda.synchronize()
    return State(tensors=tensors, cursor=cursor, pinned=from_gpu and device is not None)


def restore(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: State) -> None:
    """Restores weights and optimizer in place; a parameter without moments in the state has none afterwards."""
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(state.tensors[f"weight/{name}"])
            parameter.grad = None
            found = {m: state.tensors[f"{m}/{name}"] for m in MOMENTS if f"{m}/{name}" in state.tensors}
            if not found:
                optimizer.state.pop(parameter, None)
                continue
            kept: dict[str, Any] = optimizer.state[parameter]  # a defaultdict: empty for a parameter without state
            for moment, value in found.items():
                if moment == "step" and "state1" in found:
                    kept[moment] = int(value)
                elif moment in kept:
                    kept[moment].copy_(value)
                else:
                    kept[moment] = value.to(device=_place_of(moment, parameter, optimizer), copy=True)
            if "state1" in found:
                kept |= {name: table.to(parameter.device) for name, table in _tables(optimizer).items()}


def _tables(optimizer: Any) -> dict[str, Tensor]:
    """What the part of an optimizer that keeps moments in 8 bits keeps beside them."""
    maps = next(part.name2qmap for part in getattr(optimizer, "parts", [optimizer]) if hasattr(part, "name2qmap"))
    return {name: maps[kind] for name, kind in TABLES.items()}


def _place_of(moment: str, parameter: Tensor, optimizer: torch.optim.Optimizer) -> torch.device:
    """Where an optimizer keeps a moment: fused Adam its step count beside the parameter, the others on the CPU."""
    fused = any(group.get("fused") for group in optimizer.param_groups)
    return torch.device("cpu") if moment == "step" and not fused else parameter.device


def host_array(like: Tensor, dtype: torch.dtype) -> Tensor:
    """An array of this shape on the host, from and to which a GPU copies by itself, if the tensor is on one and the
    system lets so much memory be pinned."""
    try:
        return torch.empty(like.shape, dtype=dtype, pin_memory=like.is_cuda)
    except RuntimeError:
        return torch.empty(like.shape, dtype=dtype)


def _copy(tensor: Tensor, device: torch.device | str | None) -> Tensor:
    """A copy; from a GPU to the host into pinned memory, which takes a fraction of the time, and complete only after
    `torch.cuda.synchronize`."""
    if tensor.is_cuda and device is not None and torch.device(device).type == "cpu":
        return host_array(tensor, tensor.dtype).copy_(tensor.detach(), non_blocking=True)
    return tensor.detach().to(device=device or tensor.device, copy=True, memory_format=torch.contiguous_format)
