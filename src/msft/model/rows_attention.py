"""Attention over rows that lie end to end, given by their cumulative lengths: one operation, whatever the rows.

Registered with transformers as `msft_lengths`. On a GPU in bf16 it is torch's flash attention. Where that kernel does
not run (a CPU, fp32), the same operation is computed over padded rows, so that all that surrounds it is tested and
proven there. It is opaque to torch.compile, makes no synchronisation, and can be captured in a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from msft.forward.batches import Lengths
from msft.model.hardware import algorithms

NAME = "msft_lengths"
WIDEST = 256
"""Largest head of torch's flash attention."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    msft_lengths: Lengths | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Returns [1, tokens, heads, width]; `query` is [1, heads, tokens, width], `key` and `value` may have fewer heads.

    Without lengths (in generation) it is plain scaled-dot-product attention. Raises ValueError for what changes the
    scores and is not computed here, so that another layout of rows is used for such a model.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise ValueError(f"attention over cumulative lengths does not support {name}")
    if msft_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    if dropout:
        raise ValueError("attention over cumulative lengths does not support dropout")
    if query.shape[-1] > WIDEST or query.shape[-1] % 8 or query.shape[-1] != value.shape[-1]:
        raise ValueError(f"attention over cumulative lengths supports heads of one width, 8, 16, ... {WIDEST}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    # transformers counts the token itself, the kernel only those before it.
    before = -1 if sliding_window is None else sliding_window - 1
    out: Tensor = torch.ops.msft.rows_attention(q, k, v, msft_lengths.ends, msft_lengths.longest, scale, before)[0]
    return out[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@torch.library.custom_op("msft::rows_attention", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float, before: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[tokens, heads, width] outputs, and what the backward pass needs: the [heads, tokens] log of the softmax's sum,
    and the kernel's two numbers of dropout, which is off.

    `query`: [tokens, heads, width]; `key`, `value`: [tokens, key heads, width]; `ends`: see `Lengths`. `before`: how
    many tokens before itself a token attends to at most; -1: all.
    """
    if _flash(query):
        out, total, seed, offset, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, ends, ends, longest, longest, 0.0, True, False, scale=scale, **_window(before)
        )
        return out, total, seed, offset
    weights, total, _, _, v, slots = _padded(query, key, value, ends, longest, scale, before)
    out = torch.matmul(weights, v).transpose(1, 2).flatten(0, 1).index_select(0, slots)
    return (
        out.to(query.dtype).contiguous(),
        total.transpose(1, 2).flatten(0, 1).index_select(0, slots).t().contiguous(),
        *_none(query),
    )


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float, before: int) -> Any:
    total = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    return torch.empty_like(query), total, *_none(query)


@torch.library.custom_op("msft::rows_attention_backward", mutates_args=())
def _backward(
    given: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    out: Tensor,
    total: Tensor,
    seed: Tensor,
    offset: Tensor,
    longest: int,
    scale: float,
    before: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value from that of the outputs, [tokens, heads, width]."""
    if _flash(query):
        # With deterministic algorithms, the kernel takes its own one only where a lack of one is an error.
        with algorithms(deterministic=torch.are_deterministic_algorithms_enabled()):
            of_query, of_key, of_value = torch.ops.aten._flash_attention_backward(
                given, query, key, value, out, total, ends, ends, longest, longest, 0.0, True, seed, offset,
                scale=scale, **_window(before),
            )  # fmt: skip
        return of_query, of_key, of_value
    weights, _, q, k, v, slots = _padded(query, key, value, ends, longest, scale, before)
    of_out = _rows(given, slots, longest, len(ends) - 1)
    of_weights = of_out @ v.transpose(2, 3)
    of_products = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
    shared = key.shape[1]
    found = []
    for each, heads in ((of_products @ k, None), (of_products.transpose(2, 3) @ q, shared),
                        (weights.transpose(2, 3) @ of_out, shared)):  # fmt: skip
        if heads is not None:  # heads that share a key add their gradients
            each = each.view(len(each), heads, -1, *each.shape[2:]).sum(2)
        found.append(each.transpose(1, 2).flatten(0, 1).index_select(0, slots).to(query.dtype).contiguous())
    return found[0], found[1], found[2]


@_backward.register_fake
def _(given: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Any:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, ends, *ctx.numbers = inputs
    ctx.save_for_backward(query, key, value, ends, *output)


def _gradients(ctx: Any, given: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.msft.rows_attention_backward(given.contiguous(), *ctx.saved_tensors, *ctx.numbers)
    return *found, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup)


def _flash(query: Tensor) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def _window(before: int) -> dict[str, int]:
    return {} if before < 0 else {"window_size_left": before, "window_size_right": 0}


def _none(query: Tensor) -> tuple[Tensor, Tensor]:
    """Of the types of the kernel's seed and offset."""
    return tuple(torch.zeros(shape, dtype=torch.uint64, device=query.device) for shape in ((2,), ()))  # type: ignore[return-value]


def _padded(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float, before: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """[rows, heads, longest, longest] attention weights and [rows, heads, longest] log-sums, the padded inputs in fp32,
    and the slot of each token.

    No shape depends on the lengths themselves, as on the GPU.
    """
    rows, group = len(ends) - 1, query.shape[1] // key.shape[1]
    starts, at = ends.long(), torch.arange(len(query), device=query.device)
    row = torch.searchsorted(starts[1:].contiguous(), at, right=True)
    slots = row * longest + at - starts[row]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    q, k, v = (_rows(tensor, slots, longest, rows) for tensor in (query, key, value))
    place = torch.arange(longest, device=query.device)
    distance = place[:, None] - place
    hidden = (distance < 0) | ((distance > before) & (before >= 0))
    products = (q @ k.transpose(2, 3) * scale).masked_fill(hidden, -torch.inf)
    return products.softmax(-1), products.logsumexp(-1), q, k, v, slots


def _rows(flat: Tensor, slots: Tensor, longest: int, rows: int) -> Tensor:
    """[rows, heads, longest, width] in fp32, padded with zeros, from [tokens, heads, width]."""
    padded = flat.new_zeros(rows * longest, *flat.shape[1:], dtype=torch.float32).index_copy(0, slots, flat.float())
    return padded.view(rows, longest, *flat.shape[1:]).transpose(1, 2)
