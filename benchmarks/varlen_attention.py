"""Attention over cumulative lengths for transformers, where flash-attn is not installed: torch's own operation.

`use(model)` registers it. TRL's padding-free and packed batches bring `cu_seq_lens_q` and `max_length_q` along, as they
do for FlashAttention. On a CPU, where the operation has no body, rows are computed one after another.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

NAME = "varlen"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **given: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: (1, heads, tokens, size) in, (1, tokens, heads, size) out.

    Raises ValueError without lengths: attention over all rows as one would be silently wrong.
    """
    lengths, longest = given.get("cu_seq_lens_q"), given.get("max_length_q")
    if lengths is None or longest is None or query.shape[0] != 1:
        raise ValueError("varlen attention needs cu_seq_lens_q and max_length_q, and all rows in one")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if query.device.type == "cpu":
        return _one_by_one(query, key, value, lengths, scaling)[None], None
    kind = torch.bfloat16 if query.dtype == torch.float32 else query.dtype
    query, key, value = (tensor.to(kind) for tensor in (query, key, value))
    if not takes_groups(query.device):
        key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    found = torch.ops.aten._flash_attention_forward(
        query, key, value, lengths, lengths, longest, longest, dropout, True, False, scale=scaling
    )
    return found[0][None], None


@functools.cache
def takes_groups(device: torch.device) -> bool:
    """Whether this torch's operation takes fewer heads of keys than of queries, both ways."""
    query, key = (
        torch.randn(4, heads, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for heads in (2, 1)
    )
    lengths = torch.tensor([0, 1, 4], device=device, dtype=torch.int32)
    try:
        found = torch.ops.aten._flash_attention_forward(query, key, key, lengths, lengths, 3, 3, 0.0, True, False)
        found[0].sum().backward()
    except RuntimeError:
        return False
    return True


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float | None) -> Tensor:
    """(tokens, heads, size) in and out."""
    sizes = lengths.diff().tolist()
    parts = [
        functional.scaled_dot_product_attention(
            *(tensor.transpose(0, 1)[None] for tensor in row), is_causal=True, scale=scaling, enable_gqa=True
        )[0].transpose(0, 1)
        for row in zip(*(tensor.split(sizes) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(parts)


def use(model: PreTrainedModel) -> None:
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
