"""Replaces the forward of single layers, records it, and puts it back: the one way in which third-party layers change.

The class stays, so that a stack trace names the file that runs. The replacement is bound on the instance, as
`module.forward` is looked up there first.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch import nn

_WHY = "_msft_swapped"


def swap(module: nn.Module, forward: Callable[..., Any], why: str) -> bool:
    """Has a module compute `forward(module, ...)` from here on; `why` says for people what is different.

    `forward` must be a function of that name at the top of a module: then a copy of the model computes with the copy's
    own weights, and `torch.save` can write the model. A closure would keep computing with the original's weights.
    False, and nothing done, where somebody has replaced the forward of this instance before.
    """
    assert forward.__name__ == forward.__qualname__ == "forward", "a copy of the model would not compute with its own"
    if "forward" in module.__dict__:
        return False
    module.__dict__["forward"] = types.MethodType(forward, module)
    module.__dict__[_WHY] = why
    return True


def put_back(module: nn.Module) -> bool:
    """Has one module compute as its class says again; False where it does so already."""
    if module.__dict__.pop(_WHY, None) is None:
        return False
    del module.__dict__["forward"]
    return True


def swapped(model: nn.Module) -> dict[str, str]:
    """The modules of a model whose forward is replaced: name to why."""
    return {name: module.__dict__[_WHY] for name, module in model.named_modules() if _WHY in module.__dict__}


def restore(model: nn.Module) -> int:
    """Has every module of a model compute as its class says again; returns how many did not."""
    return sum(put_back(module) for module in model.modules())
