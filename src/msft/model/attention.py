"""Attention over the rows of a flat micro-batch, so that all other layers run on real tokens only, without padding.

Registered with transformers as `msft_rows`. Without spans (in generation, or for a model that takes padded rows) it is
plain scaled-dot-product attention. Windows, chunks, soft-capping and sinks are computed as transformers computes them;
`model/row_layout.py` proves it for each model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from msft.forward.batches import Span

NAME = "msft_rows"
PRODUCTS = 512
"""Longest row, in tokens, for which attention on a CPU is computed by plain matrix products: the fused kernel takes
three times as long, mostly in the backward pass, until the scores no longer fit in the cache (docs/performance.md)."""


_RECORDS: list[dict[nn.Module, Scores]] = []


@dataclass(frozen=True, slots=True)
class Scores:
    """How the scores of one layer differ from plain causal attention."""

    scale: float
    window: int | None = None
    """A token attends to this many tokens at most, itself included."""
    chunk: int | None = None
    """A token attends to tokens of its own chunk of this many tokens."""
    cap: float | None = None
    """Soft-capping: scores become cap x tanh(score / cap)."""
    sinks: Tensor | None = None
    """[heads] a further score in each softmax, whose weight goes nowhere."""

    @property
    def plain(self) -> bool:
        return self.cap is None and self.sinks is None


@contextmanager
def recorded() -> Iterator[dict[nn.Module, Scores]]:
    """A dictionary that is filled, in this context, with how each module's scores differ from plain attention.

    Modules that drop attention weights out are left out.
    """
    found: dict[nn.Module, Scores] = {}
    _RECORDS.append(found)
    try:
        yield found
    finally:
        _RECORDS.remove(found)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    msft_spans: Sequence[Span] = (),
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Returns [1, tokens, heads, width]; `query` is [1, heads, tokens, width], `key` and `value` may have fewer heads.

    Raises ValueError for an option that changes the scores and is not supported for flat rows.
    """
    if options.get("position_bias") is not None and msft_spans:
        raise ValueError("attention over flat rows does not support position_bias")
    scores = Scores(
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        options.pop("sliding_window", None),
        _chunk_of(module),
        options.pop("softcap", None),
        options.pop("s_aux", None),
    )
    for record in _RECORDS:
        if not dropout:
            record[module] = scores
    if not msft_spans:
        if scores.plain:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
            )
        return _by_mask(query, key, value, attention_mask, scores, dropout), None
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    flat = [tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value)]
    # One split for all: the backward pass of each slice would allocate a gradient of the whole tensor.
    lengths = [span.stop - span.start for span in msft_spans]
    pieces = []
    for span, *parts in zip(msft_spans, *(torch.split(tensor, lengths) for tensor in flat), strict=True):
        q, k, v = (_pack(part, span) for part in parts)
        by_products = (kind == "cpu" and span.longest <= PRODUCTS) or not scores.plain
        out = (_products if by_products else _fused)(q, k, v, span, scores, dropout)
        pieces.append(out.flatten(0, 1) if span.slots is None else out.flatten(0, 1).index_select(0, span.slots))
    return torch.cat(pieces)[None], None


# Excluded from compiled layers: the spans differ with every micro-batch.
AttentionInterface.register(NAME, torch.compiler.disable(attend))  # type: ignore[no-untyped-call]
AttentionMaskInterface.register(NAME, sdpa_mask)


def _pack(flat: Tensor, span: Span) -> Tensor:
    """Returns [rows, longest, heads, width]: the tokens of a span, each row padded with zeros."""
    if span.slots is not None:
        padded = flat.new_zeros(span.rows * span.longest, *flat.shape[1:])
        flat = padded.index_copy(0, span.slots, flat)
    return flat.reshape(span.rows, span.longest, *flat.shape[1:])


def _products(q: Tensor, k: Tensor, v: Tensor, span: Span, scores: Scores, dropout: float) -> Tensor:
    """Attention as two batched matrix products; query heads that share a key head are stacked into one matrix."""
    rows, longest, heads, width = q.shape
    shared, group = k.shape[2], heads // k.shape[2]
    stacked = q.reshape(rows, longest, shared, group, width).permute(0, 2, 3, 1, 4)
    stacked = stacked.reshape(rows * shared, group * longest, width)
    keys = k.permute(0, 2, 3, 1).reshape(rows * shared, width, longest)
    values = v.transpose(1, 2).reshape(rows * shared, longest, -1)
    hidden = hidden_of(span, scores, shared, group, q.dtype, q.device)
    if scores.plain:
        weights = torch.baddbmm(hidden, stacked, keys, alpha=scores.scale).softmax(-1)
    else:
        sinks = scores.sinks
        if sinks is not None:
            sinks = sinks.view(shared, group, 1, 1).expand(-1, -1, longest, 1).reshape(shared, group * longest, 1)
            sinks = sinks.repeat(rows, 1, 1)
        weights = _softmax(torch.bmm(stacked, keys), hidden, scores, sinks)
    out = torch.bmm(functional.dropout(weights, dropout), values)
    return out.view(rows, shared, group, longest, -1).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _softmax(products: Tensor, hidden: Tensor | None, scores: Scores, sinks: Tensor | None) -> Tensor:
    """The attention weights from [..., queries, keys] products; `hidden`: the additive mask, `sinks`: of the products'
    shape but for one key."""
    products = products * scores.scale
    if scores.cap is not None:
        products = torch.tanh(products / scores.cap) * scores.cap
    if hidden is not None:
        products = products + hidden
    if sinks is None:
        return products.softmax(-1)
    return torch.cat([products, sinks.to(products.dtype)], -1).softmax(-1)[..., :-1]


def _by_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scores: Scores, dropout: float) -> Tensor:
    """Attention without spans where the scores are capped or have sinks, which the fused kernel does not compute.

    `mask`: bool, True where a token attends to another, as `sdpa_mask` makes it; None: causal.
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    new, known = query.shape[2], key.shape[2]
    if mask is None:
        mask = torch.ones(new, known, dtype=torch.bool, device=query.device).tril(known - new)
    # The lowest number and not -inf: the softmax of a token that attends to nothing (padding) would be NaN.
    hidden = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    sinks = scores.sinks
    if sinks is not None:
        sinks = sinks.view(1, -1, 1, 1).expand(len(query), -1, new, 1)
    weights = _softmax(query @ key.transpose(2, 3), hidden, scores, sinks)
    return (functional.dropout(weights, dropout) @ value).transpose(1, 2)


def _chunk_of(module: nn.Module) -> int | None:
    """The chunk of a layer with chunked attention, of which the attention itself is told nothing (Llama 4)."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    types = getattr(config, "layer_types", None)
    if types is None or layer is None or layer >= len(types) or types[layer] != "chunked_attention":
        return None
    return getattr(config, "attention_chunk_size", None)


def _limits(span: Span, scores: Scores) -> tuple[int | None, int | None]:
    """The window and the chunk, each None where the span's rows do not reach beyond it."""

    def reached(size: int | None) -> int | None:
        return size if size is not None and size < span.longest else None

    return reached(scores.window), reached(scores.chunk)


def _visible(span: Span, scores: Scores, device: torch.device) -> Tensor | None:
    """[rows or 1, longest, longest] bool, which token (second axis) attends to which (third); None: plainly causal."""
    window, chunk = _limits(span, scores)
    if window is None and chunk is None:
        return span.sees
    if (window, chunk) not in span.kept:
        at = torch.arange(span.longest, device=device)[None] if span.positions is None else span.positions
        seeing, seen = at[:, :, None], at[:, None, :]
        # Padding attends to the first token of its row, which its position, 0, keeps within every window and chunk.
        visible = (seen <= seeing) if span.sees is None else span.sees
        if window is not None:
            visible = visible & (seeing - seen < window)
        if chunk is not None:
            visible = visible & (seeing // chunk == seen // chunk)
        span.kept[window, chunk] = visible
    return span.kept[window, chunk]


def hidden_of(span: Span, scores: Scores, shared: int, group: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The additive mask of the attention scores: -inf where a token does not attend to another."""
    key = *_limits(span, scores), shared, group, dtype
    if key not in span.kept:
        visible = _visible(span, scores, device)
        if visible is None:
            hidden = torch.full((span.longest, span.longest), -torch.inf, dtype=dtype, device=device).triu_(1)
        else:
            hidden = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, -torch.inf)
            if len(hidden) > 1:
                hidden = hidden.repeat_interleave(shared, 0)
        span.kept[key] = hidden.repeat(*(1,) * (hidden.ndim - 2), group, 1)
    return span.kept[key]


def _fused(q: Tensor, k: Tensor, v: Tensor, span: Span, scores: Scores, dropout: float) -> Tensor:
    visible = _visible(span, scores, q.device)
    group = q.shape[2] // k.shape[2]
    if group > 1:
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    out = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=None if visible is None else visible[:, None],
        dropout_p=dropout,
        is_causal=visible is None,
        scale=scores.scale,
    )
    return out.transpose(1, 2)
