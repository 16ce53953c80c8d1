"""Packs weights once for all matrix products of a scoring (CPU, bf16).

oneDNN repacks a plain weight into its blocked format in every matrix product. Scoring changes no weights, so they are
repacked once. This needs two private operations that Inductor uses: `can_pack()` compares them with `F.linear`, which
is used where the results differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from msft.forward.swap import put_back, swap

WHY = "linear layer that multiplies packed weights"


@contextmanager
def packed(model: nn.Module, tokens: int) -> Iterator[None]:
    """Context in which linear layers under bf16 autocast multiply `tokens` tokens at a time by packed weights.

    Weights must not change inside it, and nothing is kept for gradients.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and "forward" not in module.__dict__]
    try:
        for layer in layers:
            layer.__dict__["_packed"] = pack(layer.weight, tokens)
            swap(layer, forward, WHY)
        yield
    finally:
        for layer in layers:
            put_back(layer)
            layer.__dict__.pop("_packed", None)


def can_pack() -> bool:
    """Whether torch's private operations give the results of `F.linear`."""
    draw = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(shape, generator=draw) for shape in ((1, 5, 32), (48, 32), (48,)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = functional.linear(states, weight, bias)
        try:
            found = multiply(states, pack(weight, 5), bias)
            return found.dtype == plain.dtype and torch.allclose(found, plain, rtol=2**-6, atol=2**-6)
        except (AttributeError, RuntimeError, TypeError):
            return False


def pack(weight: Tensor, tokens: int) -> Tensor:
    """A weight [out, in] in the blocked format for products with this many tokens."""
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(torch.bfloat16), tokens)
    return blocks


def multiply(states: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    """[..., out] in bf16, from [..., in] states."""
    bias = None if bias is None else bias.to(torch.bfloat16)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states.to(torch.bfloat16), blocks, bias, "none", [], "")
    return product


def forward(self: Any, states: Tensor) -> Tensor:
    """Replaces `nn.Linear.forward` under bf16 autocast."""
    return multiply(states, self._packed, self.bias)
