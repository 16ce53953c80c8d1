"""An embedding that adds the gradients of its rows to `weight.grad` directly (CPU).

torch allocates a zero-filled gradient of the weight's size for every micro-batch. On a GPU the order of the additions
would change from run to run, so torch's implementation is used there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from msft.forward.swap import swap

WHY = "embedding that adds gradients row by row"


def gather_directly(embedding: nn.Module) -> bool:
    """Replaces the forward of a plain embedding (see `FusedHead.direct`); returns whether it did."""
    plain = type(embedding) is nn.Embedding
    if not plain or embedding.max_norm or embedding.scale_grad_by_freq or embedding.sparse:
        return False
    return swap(embedding, forward, WHY)


def forward(self: nn.Embedding, ids: Tensor) -> Tensor:
    """Replaces `nn.Embedding.forward`."""
    if not torch.is_grad_enabled() or not self.weight.requires_grad or self.weight.device.type != "cpu":
        plain: Tensor = type(self).forward(self, ids)
        return plain
    found: Tensor = _Gathered.apply(self.weight, ids, self.padding_idx)  # type: ignore[no-untyped-call]
    return found


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(weight, ids)
        ctx.padding = padding
        return functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[None, None, None]:
        weight, ids = ctx.saved_tensors
        rows, given = ids.flatten(), given.flatten(0, -2)
        if ctx.padding is not None:
            given = given.masked_fill((rows == ctx.padding)[:, None], 0.0)
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, rows, given.to(weight.dtype))
        return None, None, None
