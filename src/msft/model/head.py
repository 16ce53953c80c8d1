"""The output head and its loss as one operation.

Arrays of [tokens, vocabulary] and [vocabulary, width] are few and large. In newly allocated memory, which the system
must clear first, one pass over such an array takes as long as several layers (docs/performance.md). So the buffers are
reused, the gradient of the logits overwrites the logits, and the weight's gradient is added to `.grad` directly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from msft.forward.batches import MicroBatch, TokenScores
from msft.forward.swap import swap
from msft.model.cross_entropy import log_sum_exp, lost_to_rounding, most_likely, put_gradient, within

LOGITS = 1 << 27
"""Logits held at a time: 256 MiB in bf16."""
AT_ONCE = 512
"""Rows of the weight's gradient added at a time."""
WHY = "head, fused with its loss"


class FusedHead:
    """The logits of a head without a bias and their loss, for a model that does not change the logits in between.

    `direct`: the weight's gradient is added to `.grad` and not returned to autograd, so that hooks on it (DDP) do not
    run.
    """

    def __init__(self, head: nn.Linear, *, direct: bool) -> None:
        self.head = head
        self.direct = direct
        self._free: dict[str, Tensor] = {}
        self._gradient: Tensor | None = None

    @staticmethod
    def fits(head: nn.Module) -> bool:
        """Whether the head is a plain matrix product."""
        return type(head) is nn.Linear and head.bias is None

    def take_over(self) -> None:
        """Replaces the head's forward: from here on the model calls it with zero rows only, which costs nothing."""
        swap(self.head, forward, WHY)

    def __call__(self, states: Tensor, batch: MicroBatch) -> TokenScores:
        """The scores from [rows, width] hidden states, each of which predicts at least one target."""
        nll, best, lost = _HeadLoss.apply(states, self.head.weight, batch, self, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
        hits = best[batch.rows] == batch.targets if batch.hits else None
        return TokenScores(nll, hits, lost if batch.exact else None)

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialised array, from the free buffer of this name if possible. It need not be given back."""
        free, size = self._free.pop(name, None), math.prod(shape)
        if free is None or free.numel() < size or not _alike(free, like):
            free = like.new_empty(size)
        return free[:size].view(*shape)

    def give_back(self, name: str, array: Tensor) -> None:
        """Makes an array's buffer available to the next `take` of this name."""
        self._free[name] = array if array._base is None else array._base

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight itself, or a copy in `dtype`; pass it to `give_back_cast` after use."""
        if weight.dtype == dtype:
            return weight
        return self.take("weight", weight.shape, weight.new_empty(0, dtype=dtype)).copy_(weight)

    def give_back_cast(self, cast: Tensor) -> None:
        """Gives back the result of `cast`."""
        if cast.dtype != self.head.weight.dtype:
            self.give_back("weight", cast)

    def logits(self, states: Tensor, cast: Tensor) -> Tensor:
        """[rows, vocabulary] logits; give the array back as `logits` after use."""
        return torch.mm(states, cast.t(), out=self.take("logits", (len(states), len(cast)), cast))

    def add(self, gradient: Tensor) -> None:
        """Adds in place to `weight.grad`. The buffer is reused in the next step: keep no reference to it."""
        weight = self.head.weight
        if weight.grad is None:
            if self._gradient is None or not _alike(self._gradient, weight):
                self._gradient = torch.empty_like(weight)
            weight.grad = self._gradient.copy_(gradient)
            return
        # In parts, as torch would first copy the whole gradient to fp32.
        for mine, more in zip(torch.split(weight.grad, AT_ONCE), torch.split(gradient, AT_ONCE), strict=True):
            mine.add_(more)

    def parts(self, rows: int) -> list[slice]:
        """Slices of the rows; the logits of one slice are held at a time."""
        size = max(1, LOGITS // len(self.head.weight))
        return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, batch: MicroBatch, fused: FusedHead, trains: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        parts = fused.parts(len(states))
        total = states.new_empty(len(states), dtype=torch.float32)
        own = torch.zeros_like(batch.targets, dtype=torch.float32)
        best = torch.zeros_like(batch.read) if batch.hits else batch.read[:0]
        with torch.autocast(kind, enabled=False):
            x, w = states.to(dtype), fused.cast(weight, dtype)
            for part in parts:
                logits = fused.logits(x[part], w)
                total[part] = log_sum_exp(logits)
                place, inside = within(part, batch.rows)
                own = torch.where(inside, logits[place, batch.targets].float(), own)
                if batch.hits:
                    best[part] = most_likely(logits, states[part], weight)
                if not trains or len(parts) > 1:
                    fused.give_back("logits", logits)
            lost = torch.zeros_like(own) if batch.exact else own[:0]
            if batch.exact and dtype != torch.float32:
                lost = lost_to_rounding(own, states, weight, batch.rows, batch.targets)
        ctx.save_for_backward(x, weight, total, batch.rows, batch.targets)
        ctx.mark_non_differentiable(best, lost)
        ctx.fused, ctx.of, ctx.parts = fused, states.dtype, parts
        if trains:
            ctx.cast, ctx.logits = w, logits if len(parts) == 1 else None
        else:
            fused.give_back_cast(w)
        return total[batch.rows] - own, best, lost

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_nll: Tensor, of_best: Tensor, of_lost: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight, total, rows, targets = ctx.saved_tensors
        fused, w = ctx.fused, ctx.cast
        of_states, of_weight = torch.empty_like(x), None
        with torch.autocast(x.device.type, enabled=False):
            for part in ctx.parts:
                logits = fused.logits(x[part], w) if ctx.logits is None else ctx.logits
                put_gradient(logits, logits, total[part], rows - part.start, targets, of_nll)
                torch.mm(logits, w, out=of_states[part])
                if ctx.needs_input_grad[1]:
                    ours = fused.take("of weight", weight.shape, w)
                    torch.mm(logits.t(), x[part], out=ours)
                    if fused.direct:
                        fused.add(ours)
                    else:
                        of_weight = ours.to(weight.dtype, copy=True) if of_weight is None else of_weight.add_(ours)
                    fused.give_back("of weight", ours)
                fused.give_back("logits", logits)
        ctx.logits = ctx.cast = None
        fused.give_back_cast(w)
        return of_states.to(ctx.of) if ctx.needs_input_grad[0] else None, of_weight, None, None, None


def forward(self: nn.Linear, states: Tensor) -> Tensor:
    """Replaces `nn.Linear.forward`: for zero rows, a product would still cast the whole weight."""
    if states.numel() == 0:
        return states.new_empty(*states.shape[:-1], self.out_features)
    return type(self).forward(self, states)
