"""Cross-entropy without a copy of the logits: a few rows at a time, each read while the processor's cache holds it.

torch's own, over logits in bf16, makes three arrays of their size in fp32: the copy, its log-softmax and its gradient.

Several targets may be read from one row: the first tokens of the options of a choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = {"cpu": 1 << 20}
"""Logits that are in fp32 at once: on a CPU 4 MiB of them, about what it caches."""
OTHER_PIECE = 1 << 26
DISPUTED = 8
"""Tokens among which a tie is settled; among more, the model says nothing."""


def token_nll(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """[targets] nats in fp32, computed in fp32, from `logits` [rows, vocabulary] of any dtype.

    `rows`, `targets`: [targets] int64, the row that predicts each target, and the token that it is.
    """
    nll: Tensor = _TokenNLL.apply(logits, rows, targets)  # type: ignore[no-untyped-call]
    return nll


class _TokenNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        total = log_sum_exp(logits)
        ctx.save_for_backward(logits, total, rows, targets)
        return total[rows] - logits[rows, targets].float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_nll: Tensor) -> tuple[Tensor, None, None]:
        logits, total, rows, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        put_gradient(gradient, logits, total, rows, targets, of_nll)
        return gradient, None, None


def log_sum_exp(logits: Tensor) -> Tensor:
    """[rows] in fp32, of `logits` [rows, vocabulary]."""
    total = logits.new_empty(len(logits), dtype=torch.float32)
    for part in _parts(logits):
        total[part] = torch.logsumexp(logits[part].float(), -1)
    return total


def put_gradient(into: Tensor, logits: Tensor, total: Tensor, rows: Tensor, targets: Tensor, of_nll: Tensor) -> None:
    """Writes the gradient of the sum of `nll * of_nll` by `logits` into an array like them, which may be theirs.

    `total`: their `log_sum_exp`. Targets whose row is none of these, being negative or too large, add nothing.
    """
    for part in _parts(logits):
        place, inside = within(part, rows)
        weight = of_nll.masked_fill(~inside, 0.0)
        of_row = weight.new_zeros(part.stop - part.start).index_add_(0, place, weight)
        piece = logits[part].to(torch.float32, copy=True)
        piece.sub_(total[part, None]).exp_().mul_(of_row[:, None])
        into[part] = piece.index_put_((place, targets), -weight, accumulate=True)


def within(part: slice, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row lies in a part of them, and whether it does; of rows outside of it, some place inside."""
    return (rows - part.start).clamp(0, part.stop - part.start - 1), (rows >= part.start) & (rows < part.stop)


def most_likely(logits: Tensor, states: Tensor, weight: Tensor | None) -> Tensor:
    """[rows] int64: the arg-max of each row of `logits` [rows, vocabulary].

    In bf16, where logits around 20 are eighths, two tokens in dispute often have the same one, and the arg-max would be
    whichever has the lower number. It is settled in fp32 from the `states` [rows, width] and the `weight`
    [vocabulary, width] of the head; None: not at all.
    """
    best = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    tied, candidates = [], []
    for part in _parts(logits):
        piece = logits[part].float()
        best[part] = piece.argmax(-1)
        if weight is None or logits.dtype == torch.float32:
            continue
        top = piece.gather(1, best[part, None])
        count = (piece == top).sum(-1)
        rows = ((count > 1) & (count <= DISPUTED)).nonzero()[:, 0]
        value, token = piece[rows].topk(min(DISPUTED, piece.shape[-1]))
        # In order, for the first to win a tie in fp32; another than these stands for one of them.
        candidates.append(torch.where(value == top[rows], token, token[:, :1]).sort(-1).values)
        tied.append(rows + part.start)
    if tied and weight is not None:
        rows, tokens = torch.cat(tied), torch.cat(candidates)
        exact = torch.bmm(weight[tokens].float(), states[rows].float()[:, :, None])[:, :, 0]
        best[rows] = tokens.gather(1, exact.argmax(-1, keepdim=True))[:, 0]
    return best


def _parts(logits: Tensor) -> list[slice]:
    size = max(1, PIECE.get(logits.device.type, OTHER_PIECE) // logits.shape[-1])
    return [slice(first, min(first + size, len(logits))) for first in range(0, len(logits), size)]
