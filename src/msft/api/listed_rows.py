"""A list of rows as a table with typed columns, in which every value is what was given; or an error with the value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

import datasets
import pyarrow as pa

from msft.config.problems import shown
from msft.core.errors import DataError, complaint

Place: TypeAlias = tuple[Any, ...]
"""Where a value is in a row: column, and the keys inside its value; all elements of a list are one place."""
AS_TEXT = "give such a value as text: str(value)"
ONE_TYPE = "give all values of a column one type"


def table(rows: Sequence[Mapping[str, Any]], field: str) -> datasets.Dataset:
    """The rows; a column that a row does not have is None there.

    Raises DataError, with row and column, for a value that a typed column cannot hold as it was given: whole numbers
    beside fractions, which would become fractions, numbers beyond 64 bits, and texts that are not valid Unicode.
    """
    _check_values(rows, field)
    # `Dataset.from_list` would leave out the columns that the first row does not have.
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    try:
        return datasets.Dataset.from_dict(columns)
    except Exception as error:  # Arrow raises errors of many kinds
        _explain(columns, field, error)
        raise DataError(
            complaint(f"the rows cannot be written ({type(error).__name__}: {error})", ONE_TYPE, field=field)
        ) from error


def _check_values(rows: Sequence[Mapping[str, Any]], field: str) -> None:
    first: dict[tuple[Place, type], int] = {}
    for number, row in enumerate(rows, 1):
        if odd := [name for name in row if not isinstance(name, str)]:
            found = f"row {number} has a column named {shown(odd[0])}"
            raise DataError(complaint(found, "name columns with text", field=field))
        for place, value in _values(row, ()):
            _check_value(value, f"row {number}", place, field)
            if isinstance(value, Real) and not isinstance(value, bool):  # NumPy's numbers too
                kind = int if isinstance(value, Integral) else float
                first.setdefault((place, kind), number)
                other = first.get((place, float if kind is int else int))
                if other is not None:
                    found = f"whole numbers and fractions in the column {_named(place)} (rows {other} and {number})"
                    fix = "give all as fractions (float(value)), or, to keep how each is written, as text (str(value))"
                    raise DataError(complaint(f"{found}, which would all become fractions", fix, field=field))


def _check_value(value: Any, where: str, place: Place, field: str) -> None:
    """Raises DataError for a value that no column can hold."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        found = f"{where} has {shown(value)} in the column {_named(place)}, a number beyond 64 bits"
        raise DataError(complaint(found, AS_TEXT, field=field))
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            lone = value[error.start : error.end]
            found = f"{where} has {lone!a} in the column {_named(place)}, half of a UTF-16 pair and no character"
            fix = 'join or replace such halves: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
            raise DataError(complaint(found, fix, field=field)) from None


def _values(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, (*place, key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _values(inner, (*place, "[]"))
    else:
        yield place, value


def _named(place: Place) -> str:
    return shown(".".join(map(str, place)).replace(".[]", "[]"))


def _explain(columns: Mapping[str, Sequence[Any]], field: str, error: Exception) -> None:
    """Raises DataError with the first row whose value does not go with those before it."""
    for name, values in columns.items():
        if _fits(values):
            continue
        low, high = 1, len(values)  # the first `high` values do not go together; of one value, see below
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if not _fits(values[:middle]) else (middle + 1, high)
        alone = not _fits(values[high - 1 : high])
        value = f"{shown(values[high - 1])} in row {high}"
        found = f"the column {shown(name)} has values of several types: {value} is unlike those before it"
        if alone:
            found = f"the column {shown(name)} has {value}, which no table can hold"
        fix = "give text, numbers, True or False, lists or dicts of these" if alone else ONE_TYPE
        raise DataError(complaint(found, f"{fix}, such as text: str(value)", field=field)) from error


def _fits(values: Sequence[Any]) -> bool:
    try:
        datasets.Dataset.from_dict({"column": list(values)})
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return False
    return True
