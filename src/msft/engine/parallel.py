"""Data-parallel processes (DDP): each holds the whole model and a part of every global batch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """The processes that were launched together (one without a launcher). Construction joins their group."""

    def __init__(self) -> None:
        # Without an accelerator, no process group is started unless `cpu` is set.
        self._state = PartialState(cpu=not torch.accelerator.is_available())
        self.device: torch.device = self._state.device
        self.rank: int = self._state.process_index
        self.world: int = self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits until all processes have reached this point."""
        self._state.wait_for_everyone()

    def total(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of an array over all processes, bit-identical on each."""
        if self.world == 1:
            return array
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def distributed(self, module: nn.Module) -> nn.Module:
        """With several processes, wraps the module so that its gradients are means over all of them."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)


def unsynchronised(module: nn.Module) -> AbstractContextManager[None]:
    """Context in which gradients stay local: for all micro-batches of a step but the last."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()
