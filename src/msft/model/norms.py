"""RMSNorm with half the activation memory.

Under bf16 autocast, a norm that feeds only Linear layers returns bf16: otherwise each of those layers would cast the
norm's output to bf16 itself and keep its own copy for the backward pass, in addition to what the norm keeps. Gradients
of several readers are summed in bf16. A norm of a model in bf16 keeps its input alone, and not the steps in fp32.
Forward results are bit-identical.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from msft.forward.swap import swap

_ENDING = "RMSNorm"
WHY = "norm that returns bf16"
WHY_NARROW = "norm of bf16 in fewer operations"


def lighten_norms(model: nn.Module, trial: Callable[[], object]) -> int:
    """Replaces the forward of such norms; returns how many were replaced.

    No list of architectures is needed: `trial` runs the model once while the readers of the norms' outputs are
    recorded, and what a norm computes is compared with the replacement.
    """
    norms = [module for module in model.modules() if _is_plain(module)]
    watch = _Readers()
    hooks = [norm.register_forward_hook(watch.of) for norm in norms]
    try:
        with watch:
            trial()
    finally:
        for hook in hooks:
            hook.remove()
    found = [norm for norm in norms if watch.only_linear(norm)]
    return sum(swap(norm, forward, WHY) for norm in found)


class _Readers(TorchFunctionMode):
    """Records which functions read the outputs of some modules."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, tuple[Tensor, nn.Module]] = {}
        self._linear: set[nn.Module] = set()
        self._other: set[nn.Module] = set()

    def of(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """A forward hook."""
        self._outputs[id(output)] = output, module

    def only_linear(self, module: nn.Module) -> bool:
        return module in self._linear and module not in self._other

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # A getter reads an attribute, such as shape, dtype or device, and no values.
        if getattr(func, "__name__", "") != "__get__":
            for place, tensor in enumerate(_tensors((args, kwargs))):
                if (known := self._outputs.get(id(tensor))) is not None:
                    reads = func is functional.linear and place == 0
                    (self._linear if reads else self._other).add(known[1])
        return func(*args, **kwargs)


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        given = given.values()
    elif not isinstance(given, tuple | list):
        return []
    return [tensor for part in given for tensor in _tensors(part)]


def epsilon_of(module: nn.Module) -> float | None:
    """The epsilon of an RMSNorm; None for another module, or where the epsilon depends on the dtype."""
    if not type(module).__name__.endswith(_ENDING):
        return None
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return epsilon if isinstance(epsilon, float) else None


def lighten_narrow_norms(model: nn.Module) -> int:
    """Replaces the forward of norms that compute the same in bf16, with a bf16 weight; returns how many were replaced.
    What reads their outputs does not matter, as these have the same bits and the same type."""
    return sum(swap(module, forward, WHY_NARROW) for module in model.modules() if _is_plain(module, torch.bfloat16))


def _is_plain(norm: nn.Module, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the norm computes what `_LightNorm` does, with a weight of this type as its only parameter."""
    weight, epsilon = getattr(norm, "weight", None), epsilon_of(norm)
    if epsilon is None or len(list(norm.parameters())) != 1 or not isinstance(weight, Tensor) or weight.ndim != 1:
        return False
    if weight.dtype != torch.float32 or norm._forward_hooks or norm._forward_pre_hooks:
        return False
    tried = norm if dtype == torch.float32 else copy.deepcopy(norm).to(dtype)
    own: Any = tried.weight
    given = torch.linspace(-3, 2, 4 * len(weight), device=weight.device).reshape(1, 4, len(weight)).sin().to(dtype)
    with torch.no_grad():
        return bool(torch.equal(_LightNorm.apply(given, own, epsilon, dtype), tried(given)))  # type: ignore[no-untyped-call]


def forward(self: Any, hidden: Tensor) -> Tensor:
    """Replaces the norm's forward: under autocast it returns the autocast dtype."""
    device, dtype = hidden.device.type, hidden.dtype
    if dtype == self.weight.dtype == torch.float32 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    elif not dtype == self.weight.dtype == torch.bfloat16:
        plain: Tensor = type(self).forward(self, hidden)
        return plain
    light: Tensor = _LightNorm.apply(hidden, self.weight, epsilon_of(self), dtype)  # type: ignore[no-untyped-call]
    return light


class _LightNorm(torch.autograd.Function):
    """weight * x / rms(x), computed in fp32 and returned as `dtype`; keeps x and 1 / rms(x) for the backward pass.

    The weight is multiplied in its own type, after the conversion to `dtype` where that is the weight's: the order of
    operations of transformers, so that results are bit-identical.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        normed = wide * inverse
        return normed.mul_(weight).to(dtype) if weight.dtype == torch.float32 else normed.to(dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, inverse = ctx.saved_tensors
        gradient, normed = given.float(), x * inverse
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normed).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            scaled = gradient * weight
            share = (scaled * normed).mean(-1, keepdim=True)
            of_x = scaled.sub_(normed.mul_(share)).mul_(inverse).to(x.dtype)
        return of_x, of_weight, None, None
