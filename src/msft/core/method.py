"""What a method is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msft.core.outlook import Forecast, unknown
from msft.core.vocabulary import Brief, Plan


@dataclass(frozen=True)
class Method:
    """A plan, its parameters and its presets.

    `Params` is a standard-library dataclass whose annotations and `__post_init__` (raising ValueError) validate what
    the configuration says. A preset maps names of parameters, and of `max_epochs`, `eval_every`, `select`, ...
    to values that replace their defaults; the first preset is the default. `outlook` says what the method may do at
    most (`msft.core.outlook`); without one, `msft check` and the live view know no bound.
    """

    plan: Callable[[Brief], Plan]
    Params: type[Any]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    outlook: Forecast = unknown


def require(holds: bool, name: str, rule: str, found: object) -> None:
    """The rule and then the value, as a ValueError, where a parameter does not keep to it."""
    if not holds:
        raise ValueError(f"{name} must be {rule}, found {found!r}")
