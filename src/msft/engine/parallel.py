"""Several processes as one: each holds the whole model and a part of every global batch (DDP)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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

    def distributed(self, module: nn.Module) -> nn.Module:
        """With other processes, the module's gradients become means over all of them."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)


def unsynchronised(module: nn.Module) -> AbstractContextManager[None]:
    """Gradients of a forward and backward pass within stay local; for all micro-batches of a step but the last."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()
