"""Finds the modules that compute, to the bit, what their replacement does, with no parameters besides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

REFUSED = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What a module raises that is not built in this way."""


def same_bits(
    model: nn.Module,
    modules: Sequence[nn.Module],
    computed: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Tensor | None],
    trial: Callable[[], object],
) -> list[nn.Module]:
    """The modules whose output in the trial is, to the bit, what `computed` returns for the same arguments."""
    found: list[nn.Module] = []

    def compare(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
        try:
            plain = output[0] if isinstance(output, tuple) and output[1:] == (None,) else output
            own = computed(module, args, given)
            if own is not None and torch.equal(own, plain):
                found.append(module)
        except REFUSED:
            return

    hooks = [module.register_forward_hook(compare, with_kwargs=True) for module in modules]
    training = model.training
    try:
        with torch.no_grad():
            model.train()  # with dropout, a module gives other bits
            trial()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found


def has_only(module: nn.Module, parameters: Iterable[Tensor]) -> bool:
    """Whether these are all the parameters of a module: another may have no effect yet, but would be trained."""
    return {id(parameter) for parameter in module.parameters()} == {id(parameter) for parameter in parameters}
