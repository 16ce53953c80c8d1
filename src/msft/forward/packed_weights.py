"""Weights laid out once for all products of a scoring (CPU, bf16).

oneDNN multiplies from blocks of a layout of its own, and makes them out of a plain weight at every product. Scoring
changes no weight, so here that is done once. torch's functions for it are those that its compiler calls, and private:
they are tried, and where they are not as expected, products stay plain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def packed(model: nn.Module, tokens: int) -> Iterator[None]:
    """Within, the linear layers of a model under bf16 autocast multiply `tokens` at a time by packed weights.

    No weight may change within, and no gradient is kept.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    try:
        for layer in layers:
            layer._packed = pack(layer.weight, tokens)
            layer.__class__ = _Packed
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear
            layer.__dict__.pop("_packed", None)


def can_pack() -> bool:
    """Whether torch's private functions multiply as its public one does."""
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
    """[out, in] as the blocks that products with so many tokens take."""
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(torch.bfloat16), tokens)
    return blocks


def multiply(states: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    """[..., out] in bf16, from [..., in] states."""
    bias = None if bias is None else bias.to(torch.bfloat16)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states.to(torch.bfloat16), blocks, bias, "none", [], "")
    return product


class _Packed(nn.Linear):
    _packed: Any

    def forward(self, states: Tensor) -> Tensor:
        return multiply(states, self._packed, self.bias)
