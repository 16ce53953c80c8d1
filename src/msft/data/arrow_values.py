"""Values of Arrow columns as they are learned: classes by name, short floats in their own digits, dates as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

Convert: TypeAlias = Callable[[Any], Any]
SHORT_FLOATS = {"float16": np.float16, "float32": np.float32}
AS_TEXT = ("decimal", "date", "time")
"""How the names of types begin whose values become text: decimals as stored, dates and times as in ISO 8601."""


class ClassName(str):
    """The name of a class, and its number among the names, from 0."""

    number: int

    @classmethod
    def of(cls, name: str, number: int) -> ClassName:
        made = cls(name)
        made.number = number
        return made


def converter(feature: Any) -> Convert | None:
    """What is to be done with the values of a feature of the `datasets` library; None: nothing."""
    from datasets import ClassLabel, Json, LargeList, List, Value

    if isinstance(feature, ClassLabel):
        names = feature.names
        return lambda value: _class_name(names, value)
    if isinstance(feature, Value):
        return _of_value(str(feature.dtype))
    if isinstance(feature, Json):  # stored as text
        decode: Convert = feature.decode_example
        return decode
    if isinstance(feature, List | LargeList):
        return _optional(_of_list(converter(feature.feature)))
    if isinstance(feature, Mapping):
        return _optional(_of_object({key: converter(below) for key, below in feature.items()}))
    return None


def _class_name(names: list[str], number: int | None) -> ClassName | None:
    """The name; None for -1, by which data sets say that a class is not known."""
    return None if number is None or not 0 <= number < len(names) else ClassName.of(names[number], number)


def _of_value(dtype: str) -> Convert | None:
    if dtype in SHORT_FLOATS:
        short = SHORT_FLOATS[dtype]
        # As a double, 0.1 in 32 bits would be 0.10000000149011612. Its own shortest digits are those of 0.1.
        return _optional(lambda value: float(str(short(value))))
    if dtype.startswith(AS_TEXT):
        return _optional(lambda value: value.isoformat() if hasattr(value, "isoformat") else format(value, "f"))
    return None


def _of_list(inner: Convert | None) -> Convert | None:
    return None if inner is None else lambda values: [inner(value) for value in values]


def _of_object(inner: Mapping[str, Convert | None]) -> Convert | None:
    if not any(inner.values()):
        return None
    return lambda values: {key: convert(values[key]) if (convert := inner.get(key)) else values[key] for key in values}


def _optional(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda value: None if value is None else convert(value)
