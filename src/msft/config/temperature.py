"""`data.mixing`: how many examples an epoch takes of each sub-dataset (design 3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from msft.config.problems import Problem, ProblemsError, shown
from msft.config.section import Section
from msft.core.mixing import Mixing

MOST_REPEATS = 1000
"""Maximum of `repeat`: the order of an epoch is made as a whole."""
NAMED = ("size", "equal")


class TemperatureConfig(Section):
    """Draws between those of `size` and those of `equal`."""

    temperature: float = Field(ge=1)
    """T: an epoch takes examples of a sub-dataset in proportion to the 1/T-th power of its size. 1 is `size`; the
    higher T is, the more equal the sub-datasets are."""


def _checked(given: Any) -> Any:
    if isinstance(given, TemperatureConfig) or (isinstance(given, str) and given in NAMED):
        return given
    value = given.get("temperature") if isinstance(given, Mapping) and set(given) == {"temperature"} else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        fix = f"use one of: {', '.join(NAMED)}, or {{temperature: T}} with a T from 1"
        raise ProblemsError([Problem(f"found {shown(given)}", fix)])
    return TemperatureConfig(temperature=value)


MixingConfig: TypeAlias = Annotated[Literal["size", "equal"] | TemperatureConfig, BeforeValidator(_checked)]


def check_repeats(mixing: Literal["size", "equal"] | TemperatureConfig, repeats: Sequence[float | None]) -> None:
    """Raises ProblemsError if the data sets' `repeat`, in their order, are different and cannot have an effect."""
    if mixing == "equal" and len({repeat or 1.0 for repeat in repeats}) > 1:
        found = "it has no effect: with data.mixing: equal, an epoch takes as many examples of each sub-dataset"
        fix = "remove repeat, or write mixing: size or {temperature: T}"
        given = [number for number, repeat in enumerate(repeats) if repeat is not None]
        raise ProblemsError([Problem(found, fix, ("datasets", number, "repeat")) for number in given])


def rule(mixing: Literal["size", "equal"] | TemperatureConfig) -> Mixing:
    """The setting as the arithmetic takes it: a temperature is a number."""
    return mixing.temperature if isinstance(mixing, TemperatureConfig) else mixing
