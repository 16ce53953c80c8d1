"""What all sections of a configuration have in common: unknown keys are refused, and errors are said in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from msft.config.problems import Problem, shown

MISSING = "is missing"
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys and converts only int to float."""

    model_config = STRICT


def problem_of(detail: Mapping[str, Any]) -> Problem:
    """A pydantic error detail as a Problem."""
    key, kind = tuple(detail["loc"]), detail["type"]
    if kind == "missing":
        return Problem(MISSING, "add it", key)
    if kind == "model_type":  # pydantic's message names a class, which means nothing to users
        return Problem(f"found {shown(detail['input'])}", "give a mapping, such as {name: value}", key)
    if kind == "tuple_type":
        return Problem(f"found {shown(detail['input'])}", "give a list, such as [first, second]", key)
    message = detail["msg"].removeprefix("Value error, ")
    rule = message.removeprefix("Input should be ")
    if rule.startswith(("greater", "less")):
        rule = f"a number {rule}"
    fix = f"give {rule}" if rule != message else message[0].lower() + message[1:]
    return Problem(f"found {shown(detail['input'])}", fix, key)
