"""The processes that were launched together: each has a part of every global batch, and holds the whole model (DDP) or
a part of it (`shards.py`)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msft.core.errors import ConfigError, complaint
from msft.engine.launch import DDP, Sharding, check_ways_of_training, sharding_asked_for

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: the first one runs scorers of the user's own, and writes, while they do."""
TOGETHER = 64
"""Tensors that are summed over processes at a time; they are copied for it."""


class Processes:
    """The processes that were launched together (one without a launcher). Construction joins their group.

    Raises ConfigError if the launcher asks for a way of training that does not exist here.
    """

    def __init__(self) -> None:
        check_ways_of_training()
        # Without `cpu`, a process group needs a GPU. A Mac's GPU is not used: nothing is tested there.
        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        self._state = PartialState(cpu=on_cpu, timeout=PATIENCE)
        if self._state.distributed_type is DistributedType.XLA:
            raise ConfigError(complaint("these processes run on XLA devices", f"use GPUs or CPUs; {DDP}"))
        self.device: torch.device = self._state.device
        self.rank: int = self._state.process_index
        self.world: int = self._state.num_processes
        self.on_this_machine: int = of_this_machine(self.world)
        """How many of the processes share this machine's memory."""

    def sharding(self, wanted: bool | Literal["auto"]) -> Sharding | None:
        """How weights are split over the processes (`training.shard`); None where each process holds all of them.

        Raises ConfigError where the launcher asks for it and the configuration does not want it.
        """
        asked = sharding_asked_for()
        if wanted is False and asked is not None:
            found = "accelerate launch asks for FSDP2, and training.shard is false"
            fix = "launch with --multi_gpu, or leave training.shard out"
            raise ConfigError(complaint(found, fix, file="ACCELERATE_USE_FSDP", field="training.shard"))
        if self.world == 1 or wanted is False:
            return None
        return asked or (Sharding() if wanted is True else None)

    def check_whole(self, command: str) -> None:
        """Raises ConfigError where the launcher asks for FSDP2 and each process holds the whole model."""
        if sharding_asked_for() is not None:
            found = f"accelerate launch asks for FSDP2, and {command} holds the whole model in each process"
            raise ConfigError(complaint(found, "launch it with --multi_gpu, or without", file="ACCELERATE_USE_FSDP"))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits until all processes have reached this point."""
        self._state.wait_for_everyone()

    def from_main(self, value: Any) -> Any:
        """A value of the main process, for all."""
        if self.world == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def of_all(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""
        found = [value] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(found, value)
        return found

    def total(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of an array over all processes, bit-identical on each."""
        if self.world == 1:
            return array
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one type by their sums over all processes, bit-identical on each."""
        for start in range(0, len(tensors), TOGETHER):
            part = list(tensors[start : start + TOGETHER])
            flat = torch.cat([tensor.flatten() for tensor in part])
            torch.distributed.all_reduce(flat)
            sums = torch.split(flat, [tensor.numel() for tensor in part])
            torch._foreach_copy_(part, [total.view_as(tensor) for total, tensor in zip(sums, part, strict=True)])

    def distributed(self, module: nn.Module, *, idle: bool = False) -> nn.Module:
        """With several processes, wraps the module so that its gradients are means over all of them. `idle`: some of
        its parameters get no gradient."""
        if self.world == 1:
            return module
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has another name in newer versions
            return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=idle)


def unsynchronised(module: nn.Module) -> AbstractContextManager[None]:
    """Context in which gradients stay local: for all micro-batches of a step but the last."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def of_this_machine(world: int, environment: Mapping[str, str] = os.environ) -> int:
    """How many of `world` processes run on this machine; all of them, if the launcher does not say."""
    local = environment.get("LOCAL_WORLD_SIZE", "")
    return min(world, int(local)) if local.isdecimal() and int(local) else world
