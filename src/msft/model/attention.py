"""Attention over the rows of a flat micro-batch, so that all other layers run on real tokens only, without padding.

Registered with transformers as `msft_rows`. Without spans (in generation, or for a model that takes padded rows) it is
plain scaled-dot-product attention.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_CHANGES_SCORES = ("softcap", "s_aux", "position_bias", "sliding_window")


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
    if not msft_spans:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    if asked := [name for name in _CHANGES_SCORES if options.get(name) is not None]:
        raise ValueError(f"attention over flat rows does not support {asked[0]}")
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    flat = [tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value)]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # One split for all: the backward pass of each slice would allocate a gradient of the whole tensor.
    lengths = [span.stop - span.start for span in msft_spans]
    pieces = []
    for span, *parts in zip(msft_spans, *(torch.split(tensor, lengths) for tensor in flat), strict=True):
        q, k, v = (_pack(part, span) for part in parts)
        by_products = kind == "cpu" and span.longest <= PRODUCTS
        out = (_products if by_products else _fused)(q, k, v, span, scale, dropout)
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


def _products(q: Tensor, k: Tensor, v: Tensor, span: Span, scale: float, dropout: float) -> Tensor:
    """Attention as two batched matrix products; query heads that share a key head are stacked into one matrix."""
    rows, longest, heads, width = q.shape
    shared, group = k.shape[2], heads // k.shape[2]
    stacked = q.reshape(rows, longest, shared, group, width).permute(0, 2, 3, 1, 4)
    stacked = stacked.reshape(rows * shared, group * longest, width)
    keys = k.permute(0, 2, 3, 1).reshape(rows * shared, width, longest)
    values = v.transpose(1, 2).reshape(rows * shared, longest, -1)
    hidden = _hidden(span, shared, group, q.dtype, q.device)
    weights = torch.baddbmm(hidden, stacked, keys, alpha=scale).softmax(-1)
    out = torch.bmm(functional.dropout(weights, dropout), values)
    return out.view(rows, shared, group, longest, -1).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _hidden(span: Span, shared: int, group: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The additive mask of the attention scores: -inf where a token does not attend to another."""
    key = shared, group, dtype
    if key not in span.kept:
        hidden = torch.full((span.longest, span.longest), -torch.inf, dtype=dtype, device=device).triu_(1)
        if span.sees is not None:
            hidden = torch.zeros_like(hidden).masked_fill(~span.sees, -torch.inf).repeat_interleave(shared, 0)
        span.kept[key] = hidden.repeat(*(1,) * (hidden.ndim - 2), group, 1)
    return span.kept[key]


def _fused(q: Tensor, k: Tensor, v: Tensor, span: Span, scale: float, dropout: float) -> Tensor:
    sees = span.sees
    group = q.shape[2] // k.shape[2]
    if group > 1:
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    out = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=None if sees is None else sees[:, None],
        dropout_p=dropout,
        is_causal=sees is None,
        scale=scale,
    )
    return out.transpose(1, 2)
