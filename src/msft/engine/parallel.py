"""Several processes as one: each holds the whole model and a part of every global batch (DDP)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from msft.engine.budget import ON_A_CPU, token_budget
from msft.engine.layout import fitting_layout, lighten
from msft.engine.loss import TokenLoss, hardware_has_bf16
from msft.engine.settings import EngineSettings
from msft.scoring.forward import Runtime
from msft.scoring.packed import can_pack


class Processes:
    """This process among those that were launched together (one, where none were); joins them when made."""

    def __init__(self) -> None:
        # Without an accelerator the launcher must be told, or it starts no process group.
        self._state = PartialState(cpu=not torch.accelerator.is_available())
        self.device: torch.device = self._state.device
        self.rank: int = self._state.process_index
        self.world: int = self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits until all processes have come here."""
        self._state.wait_for_everyone()

    def total(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of an array over all processes, bit for bit the same on each."""
        if self.world == 1:
            return array
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def runtime(self, settings: EngineSettings, loss: TokenLoss) -> Runtime:
        """How forward passes run here; tries how the model takes rows, and on a GPU how many tokens fit."""
        has_bf16 = hardware_has_bf16(self.device)
        bf16 = settings.autocast == "bf16" or (settings.autocast == "auto" and has_bf16)
        found = Runtime(
            device=self.device,
            max_tokens=settings.max_tokens_per_microbatch or ON_A_CPU,
            bf16=bf16,
            layout=fitting_layout(loss, self.device),
            # Compiled layers are not those that would be packed.
            packs=bf16 and has_bf16 and self.device.type == "cpu" and not settings.torch_compile and can_pack(),
            rank=self.rank,
            world=self.world,
            total=self.total,
        )
        if not settings.torch_compile:  # which makes layers of its own
            lighten(loss, found.layout, self.device, bf16=bf16, direct=self.world == 1)
        if settings.max_tokens_per_microbatch is not None:
            return found
        budgets = np.zeros(self.world)
        budgets[self.rank] = token_budget(loss, found.layout, self.device, found.autocast)
        # The least of all: every process must cut a global batch into as many micro-batches as the others.
        return replace(found, max_tokens=int(self.total(budgets).min()))

    def distributed(self, module: nn.Module) -> nn.Module:
        """With other processes, the module's gradients become means over all of them."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)


def unsynchronised(module: nn.Module) -> AbstractContextManager[None]:
    """Gradients of a forward and backward pass within stay local; for all micro-batches of a step but the last."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()
