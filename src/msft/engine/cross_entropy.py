"""Cross-entropy without a copy of the logits: a few rows at a time, each read while the processor's cache holds it.

torch's own, over logits in bf16, makes three arrays of their size in fp32: the copy, its log-softmax and its gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

PIECE = {"cpu": 1 << 20}
"""Logits that are in fp32 at once: on a CPU 4 MiB of them, about what it caches."""
OTHER_PIECE = 1 << 26


def token_nll(logits: Tensor, targets: Tensor, hits: bool) -> tuple[Tensor, Tensor | None]:
    """From `logits` [targets, vocabulary] of any dtype and `targets` [targets] int64.

    [targets] nats in fp32, computed in fp32; and, where `hits` asks, [targets] bool: whether it was the arg-max.
    """
    nll, found = _TokenNLL.apply(logits, targets, hits)  # type: ignore[no-untyped-call]
    return nll, found if hits else None


class _TokenNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, hits: bool) -> tuple[Tensor, Tensor]:
        nll = logits.new_empty(len(targets), dtype=torch.float32)
        found = torch.empty_like(targets, dtype=torch.bool)
        for part in _parts(logits):
            piece, target = logits[part].float(), targets[part]
            nll[part] = functional.log_softmax(piece, -1).gather(1, target[:, None])[:, 0].neg_()
            if hits:
                found[part] = piece.argmax(-1) == target
        ctx.save_for_backward(logits, targets)
        ctx.mark_non_differentiable(found)
        return nll, found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_nll: Tensor, of_found: Tensor) -> tuple[Tensor, None, None]:
        logits, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _parts(logits):
            target = targets[part, None]
            piece = functional.softmax(logits[part].float(), -1)
            piece.scatter_add_(1, target, piece.new_full(target.shape, -1.0))
            gradient[part] = piece.mul_(of_nll[part, None])
        return gradient, None, None


def _parts(logits: Tensor) -> list[slice]:
    size = max(1, PIECE.get(logits.device.type, OTHER_PIECE) // logits.shape[-1])
    return [slice(first, first + size) for first in range(0, len(logits), size)]
