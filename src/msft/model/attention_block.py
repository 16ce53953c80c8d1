"""The attention of a layer as one operation: projections, rotary embedding and the attention over flat rows (fp32, CPU).

A small model is bound by the number of operations and not by their size. torch dispatches and records each operation of
this block by itself, with a view, a transposition or a copy around most; here the arrays are laid out once. The
operations that compute are those of the plain block, in its order, so that likelihoods and gradients are bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from msft.forward.batches import Span
from msft.forward.swap import swap
from msft.model.attention import PRODUCTS, Scores, hidden_of, recorded

WHY = "attention as one operation"
_BLOCK = "_msft_block"


@dataclass(frozen=True, slots=True)
class Block:
    """What the block does beside its weights, as seen in a trial."""

    scores: Scores
    reach: int
    """The longest row that was tried."""


def lighten_attention(model: nn.Module, trial: Callable[[], object], reach: int) -> int:
    """Replaces the forward of such blocks; returns how many were replaced.

    No list of architectures is needed: `trial` runs the model once, without gradients, on a flat micro-batch whose
    longest row has `reach` tokens, and a block is replaced if the replacement returned the same bits. Longer rows get
    the plain block.
    """
    blocks = [module for module in model.modules() if _has_plain_projections(module)]
    found: list[nn.Module] = []

    def compare(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
        scores = asked.get(module)
        if scores is None or not scores.plain:
            return
        module.__dict__[_BLOCK] = Block(scores, reach)
        try:
            same = not args and _takes(module, given) and torch.equal(_computed(module, given), output[0])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            same = False
        if same and len(output) == 2 and output[1] is None:
            found.append(module)

    hooks = [block.register_forward_hook(compare, with_kwargs=True) for block in blocks]
    training = model.training
    try:
        with recorded() as asked, torch.no_grad():
            model.train()  # with dropout, a block has other bits
            trial()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return sum(swap(block, forward, WHY) for block in found)


def _has_plain_projections(module: nn.Module) -> bool:
    parts = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    return all(type(part) is nn.Linear and not part._forward_hooks and not part._forward_pre_hooks for part in parts)


def forward(self: Any, *args: Any, **given: Any) -> Any:
    """Replaces the block's forward, for the rows that it was tried on."""
    if args or not _takes(self, given):
        return type(self).forward(self, *args, **given)
    return _computed(self, given), None


def _takes(block: Any, given: dict[str, Any]) -> bool:
    states, spans = given["hidden_states"], given.get("msft_spans")
    return (
        bool(spans)
        and given.get("past_key_values") is None
        and states.dtype == torch.float32
        and states.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and max(span.longest for span in spans) <= block.__dict__[_BLOCK].reach
    )


def _computed(block: Any, given: dict[str, Any]) -> Tensor:
    """[1, tokens, width]"""
    parts = (block.q_proj, block.k_proj, block.v_proj, block.o_proj)
    cos, sin = given["position_embeddings"]
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        given["hidden_states"],
        cos,
        sin,
        given["msft_spans"],
        block.__dict__[_BLOCK].scores,
        *(part.weight for part in parts),
        *(part.bias for part in parts),
    )
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, cos: Tensor, sin: Tensor, spans: Sequence[Span], scores: Scores, *parameters: Any
    ) -> Tensor:
        weights, biases = parameters[:4], parameters[4:]
        (x,), width = given, cos.shape[-1]
        sizes = [len(weight) for weight in weights[:3]]
        states = x.new_empty(len(x), sum(sizes))
        for part, weight, bias in zip(states.split_with_sizes(sizes, 1), weights, biases, strict=False):
            _linear(x, weight, bias, part)
        query, shared, _ = (size // width for size in sizes)
        half = width // 2
        turns = torch.stack((cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), -1)), 1)[:, :, None]
        _turn(states.view(len(x), -1, width)[:, : query + shared], turns[:, 0], turns[:, 1])
        seen = x.new_empty(len(x), sizes[0])
        kept = []
        for span in spans:
            q, k, v = _packed(states[span.start : span.stop], span, width, query, shared)
            hidden = hidden_of(span, scores, shared, query // shared, x.dtype, x.device)
            shares = torch.baddbmm(hidden, q, k, alpha=scores.scale).softmax(-1)
            heads = torch.bmm(shares, v).view(span.rows, query, span.longest, width)
            _unpack(heads, span, seen[span.start : span.stop])
            kept += [q, k, v, shares]
        out = _linear(seen, weights[3], biases[3])
        ctx.save_for_backward(x, seen, turns, *weights, *kept)
        ctx.spans, ctx.scale, ctx.shapes = spans, scores.scale, (sizes, query, shared, width)
        return out[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, seen, turns, *rest = ctx.saved_tensors
        weights, kept = rest[:4], rest[4:]
        sizes, query, shared, width = ctx.shapes
        (of_out,), needed = given, ctx.needs_input_grad[5:]
        of_seen = torch.mm(of_out, weights[3])
        of_states = x.new_empty(len(x), sum(sizes))
        for span, q, k, v, shares in zip(ctx.spans, kept[::4], kept[1::4], kept[2::4], kept[3::4], strict=True):
            of_rows = _spread(of_seen[span.start : span.stop], span, width, query, shared)
            of_scores = torch._softmax_backward_data(torch.bmm(of_rows, v.transpose(1, 2)), shares, -1, shares.dtype)
            of_q = torch.bmm(of_scores, k.transpose(1, 2)).view(span.rows, query, span.longest, width)
            of_k = torch.bmm(q.transpose(1, 2), of_scores).view(span.rows, shared, width, span.longest)
            of_v = torch.bmm(shares.transpose(1, 2), of_rows).view(span.rows, shared, span.longest, width)
            heads = torch.cat((of_q, of_k.transpose(2, 3), of_v), 1)
            heads[:, : query + shared].mul_(ctx.scale)
            _unpack(heads, span, of_states[span.start : span.stop])
        _turn_back(of_states.view(len(x), -1, width)[:, : query + shared], turns[:, 0], turns[:, 1])
        of_parts = (*of_states.split_with_sizes(sizes, 1), of_out)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.mm(of_parts[2], weights[2])
            of_x = of_x.add_(torch.mm(of_parts[1], weights[1])).add_(torch.mm(of_parts[0], weights[0]))[None]
        of_weights = [
            torch.mm(of.t(), x if number < 3 else seen) if needed[number] else None for number, of in enumerate(of_parts)
        ]
        of_biases = [of.sum(0) if needed[4 + number] else None for number, of in enumerate(of_parts)]
        return of_x, None, None, None, None, *of_weights, *of_biases


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """[tokens, out], as `F.linear` computes it."""
    return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)


def _turn(states: Tensor, cos: Tensor, sin: Tensor) -> None:
    """The rotary embedding of [tokens, heads, width], in place; `sin` is negative in its first half."""
    half = states.shape[-1] // 2
    other = torch.cat((states[..., half:], states[..., :half]), -1).mul_(sin)
    states.mul_(cos).add_(other)


def _turn_back(of_states: Tensor, cos: Tensor, sin: Tensor) -> None:
    """The gradient of `_turn`, in place."""
    half = of_states.shape[-1] // 2
    other = of_states * sin
    of_states.mul_(cos).add_(torch.cat((other[..., half:], other[..., :half]), -1))


def _packed(states: Tensor, span: Span, width: int, query: int, shared: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [rows x shared, group x longest, width], keys [rows x shared, width, longest] and values [rows x shared,
    longest, width] of a span."""
    rows, longest = span.rows, span.longest
    if span.slots is not None:
        states = states.index_select(0, _sources(span))
    heads = states.view(rows, longest, -1, width).transpose(1, 2)
    q = heads[:, :query].reshape(rows * shared, query // shared * longest, width)
    k = heads[:, query : query + shared].transpose(2, 3).reshape(rows * shared, width, longest)
    v = heads[:, query + shared :].reshape(rows * shared, longest, width)
    return q, k, v


def _sources(span: Span) -> Tensor:
    """[rows x longest] the token at each slot of a span; padding repeats its own row's last token."""
    if "sources" not in span.kept:
        assert span.slots is not None
        sources = torch.zeros(span.rows * span.longest, dtype=torch.int64)
        sources[span.slots] = torch.arange(len(span.slots))
        span.kept["sources"] = sources.cummax(0).values
    return span.kept["sources"]


def _spread(tokens: Tensor, span: Span, width: int, query: int, shared: int) -> Tensor:
    """[rows x shared, group x longest, width] from [tokens, queries x width]: zeros for padding."""
    if span.slots is not None:
        tokens = tokens.new_zeros(span.rows * span.longest, tokens.shape[1]).index_copy_(0, span.slots, tokens)
    heads = tokens.view(span.rows, span.longest, query, width).transpose(1, 2)
    return heads.reshape(span.rows * shared, query // shared * span.longest, width)


def _unpack(heads: Tensor, span: Span, into: Tensor) -> None:
    """Writes [rows, heads, longest, width] to the [tokens, heads x width] of a span."""
    tokens = heads.transpose(1, 2)
    if span.slots is None:
        into.view(tokens.shape).copy_(tokens)
    else:
        torch.index_select(tokens.reshape(span.rows * span.longest, -1), 0, span.slots, out=into)
