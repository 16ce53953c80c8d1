"""Replaces the forward of single layers, records it and restores it: third-party layers are changed in no other way.

The replacement is bound on the instance, where `module.forward` is looked up first. The class stays the same, so that a
stack trace names the file that runs.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch import nn

_WHY = "_msft_swapped"


def swap(module: nn.Module, forward: Callable[..., Any], why: str) -> bool:
    """Replaces a module's forward by `forward(module, ...)`; `why` describes the difference for people.

    `forward` must be a module-level function of that name: then a copy of the model uses the copy's weights, and
    `torch.save` can write the model. A closure would use the original's weights. Returns False, without a change, if
    the forward of this instance has been replaced before.
    """
    assert forward.__name__ == forward.__qualname__ == "forward", "a copy of the model would use the original's weights"
    if "forward" in module.__dict__:
        return False
    module.__dict__["forward"] = types.MethodType(forward, module)
    module.__dict__[_WHY] = why
    return True


def put_back(module: nn.Module) -> bool:
    """Restores one module's forward; returns False if it is not replaced."""
    if module.__dict__.pop(_WHY, None) is None:
        return False
    del module.__dict__["forward"]
    return True


def swapped(model: nn.Module) -> dict[str, str]:
    """The modules of a model whose forward is replaced: name to `why`."""
    return {name: module.__dict__[_WHY] for name, module in model.named_modules() if _WHY in module.__dict__}


def restore(model: nn.Module) -> int:
    """Restores the forward of every module of a model; returns how many were replaced."""
    return sum(put_back(module) for module in model.modules())
