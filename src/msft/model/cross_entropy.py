"""Cross-entropy without a copy of all logits: a few rows at a time, few enough for the processor's cache.

On bf16 logits, torch's implementation makes three fp32 arrays of the same size: a copy, its log-softmax and its
gradient.

One row may predict several targets: the first tokens of the options of a choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = {"cpu": 1 << 20}
"""Logits converted to fp32 at a time: 4 MiB on a CPU, about the size of its cache."""
OTHER_PIECE = 1 << 26
DISPUTED = 8
"""Ties of at most this many tokens are resolved in fp32; larger ones are not."""


def token_nll(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """Returns [targets] nats, computed in fp32 from `logits` [rows, vocabulary] of any dtype.

    `rows`, `targets`: [targets] int64, the row that predicts each target, and its token id.
    """
    nll: Tensor = _TokenNLL.apply(logits, rows, targets)  # type: ignore[no-untyped-call]
    return nll


def own_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """As `token_nll` where each row predicts as many targets, in order: a few operations, whose shapes do not depend on
    the targets.

    It holds all logits in fp32 for the backward pass, which a GPU does faster than our own pieces.
    """
    of_all = torch.log_softmax(logits, -1, dtype=torch.float32)
    return -of_all.gather(-1, targets.view(len(logits), -1)).flatten()


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
    """Returns [rows] in fp32, from `logits` [rows, vocabulary]."""
    total = logits.new_empty(len(logits), dtype=torch.float32)
    for part in _parts(logits):
        total[part] = torch.logsumexp(logits[part].float(), -1)
    return total


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most likely tokens of each row of `logits` [rows, vocabulary], most likely first, and their
    probabilities in fp32: [rows, count] each."""
    best = logits.topk(count, -1)
    return best.indices, (best.values.float() - log_sum_exp(logits)[:, None]).exp()


def put_gradient(into: Tensor, logits: Tensor, total: Tensor, rows: Tensor, targets: Tensor, of_nll: Tensor) -> None:
    """Writes the gradient of `(nll * of_nll).sum()` with respect to `logits` to `into`, which may be `logits` itself.

    `total`: `log_sum_exp(logits)`. Targets whose row is negative or too large are ignored.
    """
    for part in _parts(logits):
        place, inside = within(part, rows)
        weight = of_nll.masked_fill(~inside, 0.0)
        of_row = weight.new_zeros(part.stop - part.start).index_add_(0, place, weight)
        piece = logits[part].to(torch.float32, copy=True)
        piece.sub_(total[part, None]).exp_().mul_(of_row[:, None])
        into[part] = piece.index_put_((place, targets), -weight, accumulate=True)


def within(part: slice, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The index of each row within `part`, and whether the row lies in it; indices of rows outside are clamped."""
    return (rows - part.start).clamp(0, part.stop - part.start - 1), (rows >= part.start) & (rows < part.stop)


def most_likely(logits: Tensor, states: Tensor, weight: Tensor | None) -> Tensor:
    """Returns [rows] int64: the arg-max of each row of `logits` [rows, vocabulary].

    bf16 logits around 20 are multiples of 1/8, so that the best tokens are often tied, and arg-max would return the
    lowest token id. Ties are resolved in fp32 from the `states` [rows, width] and the head's `weight` [vocabulary,
    width]; with `weight=None` they are not resolved.
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
        # Sorted, so that the lowest id wins a tie in fp32. A token that is not tied is replaced by one that is.
        candidates.append(torch.where(value == top[rows], token, token[:, :1]).sort(-1).values)
        tied.append(rows + part.start)
    if tied and weight is not None:
        rows, tokens = torch.cat(tied), torch.cat(candidates)
        exact = torch.bmm(weight[tokens].float(), states[rows].float()[:, :, None])[:, :, 0]
        best[rows] = tokens.gather(1, exact.argmax(-1, keepdim=True))[:, 0]
    return best


def lost_to_rounding(rounded: Tensor, states: Tensor, weight: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """Returns [targets] in fp32: the logits of the targets as fp32 products of the `states` [rows, width] and the
    head's `weight` [vocabulary, width], minus the `rounded` ones [targets]."""
    lost = torch.empty_like(rounded, dtype=torch.float32)
    size = max(1, PIECE.get(rounded.device.type, OTHER_PIECE) // weight.shape[-1])
    for first in range(0, len(targets), size):
        part = slice(first, first + size)
        exact = (weight[targets[part]].float() * states[rows[part]].float()).sum(-1)
        lost[part] = exact - rounded[part].float()
    return lost


def _parts(logits: Tensor) -> list[slice]:
    size = max(1, PIECE.get(logits.device.type, OTHER_PIECE) // logits.shape[-1])
    return [slice(first, min(first + size, len(logits))) for first in range(0, len(logits), size)]
