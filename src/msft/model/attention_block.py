"""The attention of a layer as one operation: projections, rotary embedding, attention over flat rows (fp32, CPU).

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
from msft.model.attention import Scores, hidden_of, recorded
from msft.model.same_bits import REFUSED, has_only, same_bits

WHY = "attention as one operation"
BLOCK = "_msft_block"


@dataclass(frozen=True, slots=True)
class Block:
    """What a block does beside its weights, as seen in a trial."""

    scores: Scores
    reach: int
    """The longest row that was tried."""


def lighten_attention(model: nn.Module, trial: Callable[[], object], reach: int) -> int:
    """Replaces the forward of such blocks; returns how many were replaced.

    No list of architectures is needed: `trial` runs the model once on a flat micro-batch whose longest row has `reach`
    tokens, and a block is replaced if the replacement returned the same bits. Longer rows get the plain block.
    """

    def computed(block: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Tensor | None:
        if args or not asked[block].plain:
            return None
        block.__dict__[BLOCK] = Block(asked[block], reach)
        return _computed(block, given) if takes(block, given["hidden_states"], given) else None

    with recorded() as asked:
        blocks = [module for module in model.modules() if _has_plain_parts(module)]
        return sum(swap(block, forward, WHY) for block in same_bits(model, blocks, computed, trial))


def _has_plain_parts(block: Any) -> bool:
    """Whether the block is made of linear layers without hooks."""
    try:
        layers = (block.q_proj, block.k_proj, block.v_proj, block.o_proj)
        plain = all(type(part) is nn.Linear and not part._forward_hooks | part._forward_pre_hooks for part in layers)
        return plain and has_only(block, parameters(block))
    except REFUSED:
        return False


def projections(block: Any) -> tuple[Tensor | None, ...]:
    """Weights, then biases, of the projections of queries, keys, values and outputs."""
    layers = (block.q_proj, block.k_proj, block.v_proj, block.o_proj)
    return (*(layer.weight for layer in layers), *(layer.bias for layer in layers))


def parameters(block: Any) -> list[Tensor]:
    """`projections` without the biases that are missing."""
    return [parameter for parameter in projections(block) if parameter is not None]


def forward(self: Any, *args: Any, **given: Any) -> Any:
    """Replaces the block's forward, for the rows that it was tried on."""
    if args or not takes(self, given["hidden_states"], given):
        return type(self).forward(self, *args, **given)
    return _computed(self, given), None


def takes(block: nn.Module, states: Tensor, given: dict[str, Any]) -> bool:
    """Whether these are arguments of the kind that the block was tried on."""
    spans: Sequence[Span] = given.get("msft_spans", ())
    return (
        bool(spans)
        and given.get("past_key_values") is None
        and states.dtype == torch.float32
        and states.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and max(span.longest for span in spans) <= block.__dict__[BLOCK].reach
    )


def _computed(block: Any, given: dict[str, Any]) -> Tensor:
    """[1, tokens, width]"""
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        given["hidden_states"],
        *given["position_embeddings"],
        given["msft_spans"],
        block.__dict__[BLOCK].scores,
        *projections(block),
    )
    return out


@dataclass(frozen=True, slots=True)
class Shape:
    """How the attention of a micro-batch was computed, for its gradients."""

    spans: Sequence[Span]
    scale: float
    width: int
    query: int
    shared: int
    """Heads of queries, and of keys and values."""

    @property
    def sizes(self) -> list[int]:
        """Widths of queries, keys and values."""
        return [self.query * self.width, self.shared * self.width, self.shared * self.width]


def turns_of(cos: Tensor, sin: Tensor, spans: Sequence[Span]) -> Tensor:
    """[2, tokens, 1, width]: cosines, and sines that are negative in the first half; the same for all layers."""
    kept = spans[0].kept
    if kept.get("turns of") is not cos:
        half = cos.shape[-1] // 2
        turns = torch.stack((cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), -1)))[:, :, None]
        kept["turns"], kept["turns of"] = turns, cos
    return kept["turns"]


def attention(
    x: Tensor, turns: Tensor, spans: Sequence[Span], scores: Scores, weights: Sequence[Tensor], biases: Sequence[Any]
) -> tuple[Tensor, list[Tensor], Shape]:
    """[tokens, width] from [tokens, width], and the tensors that `gradients` needs.

    `weights`, `biases`: those of the projections of queries, keys, values and outputs.
    """
    width = turns.shape[-1]
    shape = Shape(spans, scores.scale, width, len(weights[0]) // width, len(weights[1]) // width)
    states = x.new_empty(len(x), sum(shape.sizes))
    for part, weight, bias in zip(states.split_with_sizes(shape.sizes, 1), weights, biases, strict=False):
        _linear(x, weight, bias, part)
    _turn(states.view(len(x), -1, width)[:, : shape.query + shape.shared], turns)
    seen = x.new_empty(len(x), shape.query * width)
    kept = [x, seen, turns]
    for span in spans:
        q, k, v = _packed(states[span.start : span.stop], span, shape)
        hidden = hidden_of(span, scores, shape.shared, shape.query // shape.shared, x.dtype, x.device)
        shares = torch.baddbmm(hidden, q, k, alpha=scores.scale).softmax(-1)
        heads = torch.bmm(shares, v).view(span.rows, shape.query, span.longest, width)
        _unpack(heads, span, seen[span.start : span.stop])
        kept += [q, k, v, shares]
    return _linear(seen, weights[3], biases[3]), kept, shape


def gradients(
    of_out: Tensor, kept: Sequence[Tensor], shape: Shape, weights: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of [tokens, width] states, and those of the weights and biases, where needed."""
    x, seen, turns, *packed = kept
    of_seen = torch.mm(of_out, weights[3])
    of_states = x.new_empty(len(x), sum(shape.sizes))
    heads_turned = shape.query + shape.shared
    for span, q, k, v, shares in zip(shape.spans, packed[::4], packed[1::4], packed[2::4], packed[3::4], strict=True):
        of_rows = _spread(of_seen[span.start : span.stop], span, shape)
        of_scores = torch._softmax_backward_data(torch.bmm(of_rows, v.transpose(1, 2)), shares, -1, shares.dtype)
        of_q = torch.bmm(of_scores, k.transpose(1, 2)).view(span.rows, shape.query, span.longest, shape.width)
        of_k = torch.bmm(q.transpose(1, 2), of_scores).view(span.rows, shape.shared, shape.width, span.longest)
        of_v = torch.bmm(shares.transpose(1, 2), of_rows).view(span.rows, shape.shared, span.longest, shape.width)
        heads = torch.cat((of_q, of_k.transpose(2, 3), of_v), 1)
        heads[:, :heads_turned].mul_(shape.scale)
        _unpack(heads, span, of_states[span.start : span.stop])
    _turn_back(of_states.view(len(x), -1, shape.width)[:, :heads_turned], turns)
    of_parts = (*of_states.split_with_sizes(shape.sizes, 1), of_out)
    # In the order in which autograd adds them.
    of_x = torch.mm(of_parts[2], weights[2])
    of_x.add_(torch.mm(of_parts[1], weights[1])).add_(torch.mm(of_parts[0], weights[0]))
    inputs = (x, x, x, seen)
    of_weights = [torch.mm(of.t(), inputs[at]) if needed[at] else None for at, of in enumerate(of_parts)]
    return of_x, of_weights + [of.sum(0) if needed[4 + at] else None for at, of in enumerate(of_parts)]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, cos: Tensor, sin: Tensor, spans: Sequence[Span], scores: Scores, *parameters: Any
    ) -> Tensor:
        weights, biases = parameters[:4], parameters[4:]
        out, kept, ctx.shape = attention(given[0], turns_of(cos, sin, spans), spans, scores, weights, biases)
        ctx.save_for_backward(*weights, *kept)
        return out[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        of_x, of_parameters = gradients(given[0], saved[4:], ctx.shape, saved[:4], ctx.needs_input_grad[5:])
        return of_x[None], None, None, None, None, *of_parameters


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """[tokens, out], as `F.linear` computes it."""
    return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)


def _turn(states: Tensor, turns: Tensor) -> None:
    """The rotary embedding of [tokens, heads, width], in place."""
    cos, sin = turns
    half = states.shape[-1] // 2
    other = torch.cat((states[..., half:], states[..., :half]), -1).mul_(sin)
    states.mul_(cos).add_(other)


def _turn_back(of_states: Tensor, turns: Tensor) -> None:
    """The gradient of `_turn`, in place."""
    cos, sin = turns
    half = of_states.shape[-1] // 2
    other = of_states * sin
    of_states.mul_(cos).add_(torch.cat((other[..., half:], other[..., :half]), -1))


def _packed(states: Tensor, span: Span, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [rows x shared, group x longest, width], keys [rows x shared, width, longest] and values [rows x shared,
    longest, width] of a span."""
    rows, longest = span.rows, span.longest
    width, query, shared = shape.width, shape.query, shape.shared
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


def _spread(tokens: Tensor, span: Span, shape: Shape) -> Tensor:
    """[rows x shared, group x longest, width] from [tokens, queries x width]: zeros for padding."""
    if span.slots is not None:
        tokens = tokens.new_zeros(span.rows * span.longest, tokens.shape[1]).index_copy_(0, span.slots, tokens)
    heads = tokens.view(span.rows, span.longest, shape.query, shape.width).transpose(1, 2)
    return heads.reshape(span.rows * shape.shared, -1, shape.width)


def _unpack(heads: Tensor, span: Span, into: Tensor) -> None:
    """Writes [rows, heads, longest, width] to the [tokens, heads x width] of a span."""
    tokens = heads.transpose(1, 2)
    if span.slots is None:
        into.view(tokens.shape).copy_(tokens)
    else:
        torch.index_select(tokens.reshape(span.rows * span.longest, -1), 0, span.slots, out=into)
