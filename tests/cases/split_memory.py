"""Trains a step of a split model with fake tensors, as one of several fake processes, and prints the peak of memory.

python split_memory.py MODEL_FOLDER LAYERS PROCESSES
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM

from msft.engine.launch import Sharding
from msft.engine.shards import split

TOKENS = 64


class Loss(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).mean()
        return loss


def main(folder: str, layers: int, processes: int) -> None:
    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    mesh = init_device_mesh("cpu", (processes,))
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=layers, layer_types=["full_attention"] * layers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        loss = Loss(model)
        split(loss, model, mesh, Sharding(), mixed=True)
        loss._apply(lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor)
        parameters: list[Any] = list(loss.parameters())
        with torch.no_grad():
            rows = [parameter.to_local().detach() for parameter in parameters]
        optimizer = torch.optim.AdamW(rows, fused=True)
        tracker = FSDPMemTracker(loss, optimizer)
        tracker.track_inputs(())
        ids = torch.zeros(1, TOKENS, dtype=torch.long)
        with tracker:
            for number in range(2):  # the first makes the moments
                if number:
                    tracker.reset_mod_stats()
                loss(ids).backward()
                with torch.no_grad():
                    for parameter, row in zip(parameters, rows, strict=True):
                        row.grad, parameter.grad = parameter.grad.to_local(), None
                optimizer.step()
                optimizer.zero_grad()
                for module in loss.modules():
                    if isinstance(module, FSDPModule):
                        module.reshard()
    for moment in ("current", "peak"):
        (kinds,) = tracker.get_tracker_snapshot(moment).values()
        print(moment, kinds["Total"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
