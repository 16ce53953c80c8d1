"""RMSNorm with half the activation memory: under bf16 autocast, a norm that only Linear layers read returns bf16.

Those layers would cast its output to bf16 by themselves, once for each of them, and keep every copy for the backward
pass, beside what the norm's own products keep. The numbers of a forward pass are the same, bit for bit; gradients of
several readers are summed in bf16.
"""

from __future__ import annotations

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


def lighten_norms(model: nn.Module, trial: Callable[[], object]) -> int:
    """Makes such norms of the model light from here on; how many.

    Which they are, no list of architectures could say: `trial` runs the model once, and what reads their outputs is
    watched; what a norm computes is compared with its own.
    """
    norms = [module for module in model.modules() if _epsilon(module) is not None and _is_plain(module)]
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
    """Notes what takes the outputs of some modules."""

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
        # What only looks at shape, type or device is an attribute's getter.
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


def _epsilon(module: nn.Module) -> float | None:
    """That of an RMS norm; None where it is none, or its epsilon is a matter of its dtype."""
    if not type(module).__name__.endswith(_ENDING):
        return None
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return epsilon if isinstance(epsilon, float) else None


def _is_plain(norm: nn.Module) -> bool:
    """Whether it computes what the light one does, and has nothing but a weight."""
    weight = getattr(norm, "weight", None)
    if len(list(norm.parameters())) != 1 or not isinstance(weight, Tensor) or weight.ndim != 1:
        return False
    if weight.dtype != torch.float32 or norm._forward_hooks or norm._forward_pre_hooks:
        return False
    given = torch.linspace(-3, 2, 4 * len(weight), device=weight.device).reshape(1, 4, len(weight)).sin()
    with torch.no_grad():
        expected, epsilon = norm(given), _epsilon(norm)
        assert epsilon is not None
        return bool(torch.equal(_LightNorm.apply(given, weight, epsilon, torch.float32), expected))  # type: ignore[no-untyped-call]


def forward(self: Any, hidden: Tensor) -> Tensor:
    """The norm's own forward, but under autocast."""
    device = hidden.device.type
    if hidden.dtype != torch.float32 or not torch.is_autocast_enabled(device):
        plain: Tensor = type(self).forward(self, hidden)
        return plain
    dtype = torch.get_autocast_dtype(device)
    light: Tensor = _LightNorm.apply(hidden, self.weight, _epsilon(self), dtype)  # type: ignore[no-untyped-call]
    return light


class _LightNorm(torch.autograd.Function):
    """weight * x / rms(x), computed in fp32 and put out as `dtype`; keeps x and 1 / rms(x) for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        # In the order of transformers' own, for the same bits.
        inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, inverse = ctx.saved_tensors
        gradient, normed = given.float(), x * inverse
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normed).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            scaled = gradient * weight
            share = (scaled * normed).mean(-1, keepdim=True)
            of_x = scaled.sub_(normed.mul_(share)).mul_(inverse)
        return of_x, of_weight, None, None
