"""Gated MLPs with a quarter less activation memory: the backward pass recomputes the gate's activation.

The results are bit-identical to the plain computation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from msft.forward.swap import swap

WHY = "gated MLP with a quarter less activation memory"


def lighten_gates(model: nn.Module) -> int:
    """Replaces the forward of every MLP that computes `down(silu(gate(x)) * up(x))`; returns how many were replaced."""
    found = [module for module in model.modules() if _is_gated(module)]
    return sum(swap(module, forward, WHY) for module in found)


def _is_gated(module: nn.Module) -> bool:
    """Whether the module computes that, in training mode too (dropout), probed on a few numbers."""
    gate = getattr(module, "gate_proj", None)
    weight = next(gate.parameters(), None) if isinstance(gate, nn.Module) else None
    if weight is None:
        return False
    given = torch.linspace(-3, 2, 64 * weight.shape[-1]).sin().reshape(1, 64, -1).to(weight)
    training = module.training
    try:
        with torch.no_grad():
            return bool(torch.equal(module.train()(given), forward(module, given)))
    except (AttributeError, TypeError, RuntimeError):
        return False
    finally:
        module.train(training)


def forward(self: Any, hidden: Tensor) -> Tensor:
    """`down(silu(gate(x)) * up(x))`."""
    product: Tensor = _Gate.apply(self.gate_proj(hidden), self.up_proj(hidden))  # type: ignore[no-untyped-call]
    down: Tensor = self.down_proj(product)
    return down


class _Gate(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate: Tensor = torch.ops.aten.silu_backward(given * up, gate)
        return of_gate, functional.silu(gate).mul_(given)
