"""Weights that are split over the processes (FSDP2): each holds some rows of each tensor, and what belongs to them.

A layer's weights are gathered for its forward and its backward pass, and its gradients are summed and split again, by
torch's `fully_shard`. All else, from the optimizer to snapshots, works on this process's rows, which are plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from msft.core.errors import ConfigError, ModelError, complaint
from msft.engine.launch import Sharding
from msft.engine.parallel import Processes
from msft.model.hollow import WHOLE, hollow
from msft.model.model_parts import base_of, decoder_layers
from msft.model.open import OpenModel
from msft.model.precision import Precision, kept_in_fp32, narrow
from msft.model.token_loss import TokenLoss
from msft.snapshots.row_parts import rows_of
from msft.snapshots.state import State, trainable


class Shards:
    """A model of which this process holds its rows; in place of `Masters` for all that trains it.

    With `mixed`, the rows of trained parameters are fp32 masters, and layers compute with gathered bf16 copies; frozen
    parameters are bf16. Nothing may call a module of `loss` past its `forward`, and every process must make the same
    passes. Construction reads this process's rows of the base's files. Raises ConfigError, ModelError for a model or
    an adapter that cannot be split.
    """

    averages = True
    """The gradients of a backward pass come as their mean over the processes."""
    in_parts = True

    def __init__(
        self, opened: OpenModel, processes: Processes, precision: Precision, asked: Sharding, *, checkpoints: bool
    ) -> None:
        self._processes, self._mixed = processes, precision == "mixed"
        model, self._origins, self.rows = hollow(opened.source)
        self.model = model
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.loss = TokenLoss(model).train()
        if self._mixed:
            narrow(model, trained=False)
        self._mesh = init_device_mesh(processes.device.type, (processes.world,))
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        split(self.loss, base_of(model), self._mesh, asked, mixed=self._mixed)
        self._parameters: dict[str, Any] = dict(model.named_parameters())
        self._fill()
        self.tensors: dict[str, Tensor] = {name: _local(parameter) for name, parameter in trainable(model).items()}

    @torch.no_grad()
    def _fill(self) -> None:
        """Gives the base's parameters memory for this process's rows, and reads them."""
        device = self._processes.device

        def filled(tensor: Tensor) -> Tensor:
            return torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)

        self.loss._apply(filled)  # type: ignore[no-untyped-call]
        for name, rows in self._read(self._origins):
            _local(self._parameters[name]).copy_(rows)

    def _read(self, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
        for name, stored in names.items():
            first, last = self._range(name)
            yield name, self.rows.read(stored, first, last, self._parameters[name].dtype)

    def _range(self, name: str) -> tuple[int, int]:
        return rows_of(self.shapes[name][0], self._processes.world, self._processes.rank)

    def base(self) -> State:
        """This process's rows of the base model's weights, read again."""
        return State(tensors={f"weight/{name}": rows for name, rows in self._read(self._origins)})

    @torch.no_grad()
    def collect(self) -> None:
        """Adds this process's rows of the gradients of a micro-batch to those of its tensors, in fp32."""
        for name, tensor in self.tensors.items():
            parameter = self._parameters[name]
            if parameter.grad is None:
                continue
            gradient = _local(parameter.grad)
            parameter.grad = None
            if tensor.grad is None:
                tensor.grad = gradient
            else:
                tensor.grad.add_(gradient)

    def cast(self) -> None:
        """Makes the next pass gather the weights anew: what is gathered is what they were before a change."""
        for module in self.loss.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def norm(self, own: Tensor) -> Tensor:
        """The norm of all gradients, from that of this process's rows."""
        total = self._processes.total(own.double().square().cpu().numpy()[None])
        return torch.from_numpy(total).sqrt()[0].to(own)

    def whole(self, name: str, rows: Tensor | None = None) -> Tensor:
        """All rows of a parameter, or of a tensor of its shape of which this process has `rows`; gathered from all
        processes, which must all ask."""
        shape = self.shapes[name]
        rows = _local(self._parameters[name]) if rows is None else rows.to(self._processes.device)
        parts = DTensor.from_local(rows.contiguous(), self._mesh, [Shard(0)], shape=shape, stride=_strides(shape))
        return parts.full_tensor()

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This process's rows of a tensor that belongs to a parameter."""
        first, last = self._range(name)
        return whole[first:last]


def split(whole: nn.Module, model: PreTrainedModel, mesh: DeviceMesh, asked: Sharding, *, mixed: bool) -> None:
    """Splits the weights of `whole`, which holds the model, over the processes of the mesh. Raises ConfigError,
    ModelError for layers that are not found or not in one type."""
    layers = layers_of(model)
    kinds = {type(layer).__name__ for layer in layers}
    if asked.layer is not None and not kinds <= set(asked.layer.split(",")):
        said = f"accelerate launch asks to split {asked.layer}, and this model's layers are {', '.join(sorted(kinds))}"
        raise ConfigError(complaint(said, "omit it", file="FSDP_TRANSFORMER_CLS_TO_WRAP"))
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if mixed:
        if kept_in_fp32(model) is not None:
            found = f"{type(model).__name__} keeps some parameters in fp32, and FSDP2 gathers a layer in one type"
            raise ModelError(complaint(found, "set model.precision: autocast, or fp32", field="training.shard"))
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=asked.again)
    # Embeddings and head belong together where they are tied; their weights are used at both ends of a pass.
    fully_shard(whole, mesh=mesh, mp_policy=policy)


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers, which are gathered one at a time. Raises ModelError where they are not found."""
    if not (found := decoder_layers(model)):
        said = f"the layers of {type(model).__name__} are not found"
        raise ModelError(complaint(said, WHOLE, field="training.shard"))
    return found


def transient_bytes(model: PreTrainedModel, *, mixed: bool) -> int:
    """The most that gathered weights, and gradients before they are split, take at a time.

    Either of embeddings and head, at the end of a backward pass: gradients, and a copy in fp32 to be summed. Or within
    it: their weights, those of a layer and of the next, and a layer's gradients with their copy.
    """
    layers = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers_of(model)]
    ends = sum(parameter.numel() for parameter in model.parameters()) - sum(layers)
    return gathered_at_a_time(ends, max(layers), 2 if mixed else 4)


def gathered_at_a_time(ends: int, layer: int, size: int) -> int:
    """As `transient_bytes`, from the parameters of embeddings and head and of a layer. `size`: bytes of one that is
    gathered."""
    return max((size + 4) * ends, size * ends + (3 * size + 4) * layer)


def _local(parameter: Any) -> Tensor:
    """The rows that a distributed tensor keeps in this process, not a copy."""
    with torch.no_grad():
        found: Tensor = parameter.to_local().detach()
        return found


def _strides(shape: torch.Size) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()
