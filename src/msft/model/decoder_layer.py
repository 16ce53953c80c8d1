"""A decoder layer as one operation: norm, attention and residual, norm, gated MLP and residual (fp32, CPU).

It goes on where `attention_block.py` ends, for the same reason. Likelihoods and gradients are bit-identical to those of
the plain layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from msft.forward.swap import swap
from msft.model import attention_block
from msft.model.attention_block import attention, gradients, projections, takes, turns_of
from msft.model.norms import epsilon_of
from msft.model.same_bits import REFUSED, has_only, same_bits

WHY = "layer as one operation"


def lighten_layers(model: nn.Module, trial: Callable[[], object]) -> int:
    """Replaces the forward of the layers that compute this, after `lighten_attention`; returns how many were replaced.

    No list of architectures is needed: a layer is replaced if the replacement returned the same bits in `trial`.
    """

    def computed(layer: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Tensor | None:
        return _computed(layer, args[0], given) if takes(layer.self_attn, args[0], given) else None

    layers = [module for module in model.modules() if _has_plain_parts(module)]
    return sum(swap(layer, forward, WHY) for layer in same_bits(model, layers, computed, trial))


def _has_plain_parts(layer: Any) -> bool:
    """Whether the layer has the parts of this operation and no parameter besides, and no hooks on its parts."""
    try:
        norms = layer.input_layernorm, layer.post_attention_layernorm
        if layer.self_attn.__dict__["forward"].__func__ is not attention_block.forward:
            return False
        plain = all(type(part) is nn.Linear and part.bias is None for part in _products(layer.mlp))
        parts = (*norms, layer.self_attn, layer.mlp, *_products(layer.mlp))
        # A norm may have no weight (OLMo).
        used = [part.weight for part in (*norms, *_products(layer.mlp))] + attention_block.parameters(layer.self_attn)
    except REFUSED:
        return False
    watched = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    return plain and not watched and None not in map(epsilon_of, norms) and has_only(layer, used)


def _products(mlp: Any) -> tuple[Any, ...]:
    return mlp.gate_proj, mlp.up_proj, mlp.down_proj


def forward(self: Any, *args: Any, **given: Any) -> Any:
    """Replaces the layer's forward, for the rows that its attention was tried on."""
    if len(args) != 1 or not takes(self.self_attn, args[0], given):
        return type(self).forward(self, *args, **given)
    return _computed(self, args[0], given)


def _computed(layer: Any, states: Tensor, given: dict[str, Any]) -> Tensor:
    """[1, tokens, width]"""
    norms, block = (layer.input_layernorm, layer.post_attention_layernorm), layer.self_attn
    out: Tensor = _Layer.apply(  # type: ignore[no-untyped-call]
        states,
        *given["position_embeddings"],
        given["msft_spans"],
        block.__dict__[attention_block.BLOCK].scores,
        tuple(map(epsilon_of, norms)),
        *(part.weight for part in (*norms, *_products(layer.mlp))),
        *projections(block),
    )
    return out


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, cos: Tensor, sin: Tensor, spans: Any, scores: Any, epsilons: Any, *parameters: Any
    ) -> Tensor:
        (first, second, gate, up, down), weights, biases = parameters[:5], parameters[5:9], parameters[9:]
        x = states[0]
        inner, *of_first = _norm(x, first, epsilons[0])
        out, kept, ctx.shape = attention(inner, turns_of(cos, sin, spans), spans, scores, weights, biases)
        middle = x + out
        inner, *of_second = _norm(middle, second, epsilons[1])
        gated, upped = torch.mm(inner, gate.t()), torch.mm(inner, up.t())
        product = functional.silu(gated).mul_(upped)
        ctx.save_for_backward(*parameters[:9], x, *of_first, middle, *of_second, inner, gated, upped, product, *kept)
        return (middle + torch.mm(product, down.t()))[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        (first, second, gate, up, down, *weights), kept = saved[:9], saved[19:]
        x, inverse, normed, middle, inverse_2, normed_2, inner, gated, upped, product = saved[9:19]
        (of_out,), needed = given, ctx.needs_input_grad[6:]
        of_product = torch.mm(of_out, down)
        of_gated = torch.ops.aten.silu_backward(of_product * upped, gated)
        of_upped = functional.silu(gated).mul_(of_product)
        of_mlp = (
            torch.mm(of_gated.t(), inner) if needed[2] else None,
            torch.mm(of_upped.t(), inner) if needed[3] else None,
            torch.mm(of_out.t(), product) if needed[4] else None,
        )
        of_inner = torch.mm(of_upped, up).add_(torch.mm(of_gated, gate))
        of_middle, of_second = _norm_back(of_out, of_inner, middle, second, inverse_2, normed_2, needed[1])
        of_inner, of_projections = gradients(of_middle, kept, ctx.shape, weights, needed[5:])
        of_x, of_first = _norm_back(of_middle, of_inner, x, first, inverse, normed, needed[0])
        return of_x[None], None, None, None, None, None, of_first, of_second, *of_mlp, *of_projections


def _norm(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """weight * x / rms(x), 1 / rms(x) and x / rms(x), in the order of operations of transformers."""
    inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
    normed = x * inverse
    return weight * normed, inverse, normed


def _norm_back(
    of_residual: Tensor, given: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, normed: Tensor, learns: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, which `of_residual` is a part of, and of the weight, in the order in which autograd adds."""
    of_normed = given * weight
    of_variance = (of_normed * x).sum(-1, keepdim=True).mul_(-0.5).mul_(inverse.pow(3)).div_(x.shape[-1])
    of_x = of_normed.mul_(inverse).add_(of_residual).add_((x * 2).mul_(of_variance))
    return of_x, (given * normed).sum(0) if learns else None
