"""`split_by`: one entry of the configuration, a sub-dataset for each value of a column."""

from __future__ import annotations

import re

from pydantic import ValidationError

from msft.config.problems import folded, not_portable, one_of, shown
from msft.config.schema import DatasetConfig, Scalar, SplitConfig
from msft.core.errors import DataError, complaint
from msft.data.rows import survey
from msft.data.sources import Source

UNSAFE = re.compile(r'[/\\<>:"|?*]')
"""What cannot be in the name of a file somewhere."""


def parts(dataset: DatasetConfig, source: Source) -> tuple[list[DatasetConfig], list[str]]:
    """The data set's sub-datasets, ordered by value, and what people should know of them; itself without `split_by`.

    Raises DataError where the column is not there, or a value cannot name a sub-dataset.
    """
    if dataset.split_by is None:
        return [dataset], []
    column = dataset.split_by
    counts, missing, first = _counts(dataset, source, column)
    values = sorted(counts, key=lambda value: (str(type(value)), value))
    made = [_part(dataset, column, value, first[value]) for value in values]
    named: dict[str, Scalar] = {}
    for part, value in zip(made, values, strict=True):
        name = folded(part.id)
        if name in named:
            found = f"{shown(named[name])} and {shown(value)} would both name {shown(part.id)}"
            raise _bad(dataset, found, "make the two values the same, or more different", first[value])
        named[name] = value
    least = min(counts, key=lambda value: counts[value])
    notes = [f"{len(made)} sub-datasets by {column}; the smallest, {shown(least)}, has {counts[least]} rows"]
    if missing:
        notes.append(f"{missing} rows without {column} belong to none of the sub-datasets")
    return made, notes


def _counts(
    dataset: DatasetConfig, source: Source, column: str
) -> tuple[dict[str | int | float, int], int, dict[str | int | float, str]]:
    """Value to the number of its rows; the number of rows without one; value to the place of its first row."""
    rows = source.rows(where=dataset.where)
    counts: dict[str | int | float, int] = {}
    first: dict[str | int | float, str] = {}
    missing = 0
    for row in rows:
        value = row.values.get(column)
        if value is None:
            missing += 1
        elif isinstance(value, str | int | float):
            counts[value] = counts.get(value, 0) + 1
            first.setdefault(value, row.place)
        else:
            found = f"{column} is a {type(value).__name__}, which names no sub-dataset"
            raise _bad(dataset, found, "name a column of texts or numbers", row.place)
    if not counts:
        raise _bad(dataset, f"no row has a column {shown(column)}", one_of(column, survey(rows).columns))
    return counts, missing, first


def _part(dataset: DatasetConfig, column: str, value: Scalar, place: str) -> DatasetConfig:
    """The data set with the rows of one value, first seen at `place`; splits that are read take theirs.

    Characters that no file name can have, which are common in headings (`What?`, `b/c`), become hyphens in the name; a
    value that hides something (blank, control and direction marks) or names nothing (300 bytes) is refused.
    """

    def of(split: SplitConfig | None) -> SplitConfig | None:
        if split is None or not split.given:
            return split
        return split.model_copy(update={"where": {**(split.where or {}), column: value}})

    name = f"{dataset.id}.{UNSAFE.sub('-', str(value)).strip(' .')}"
    reason = not_portable(name) if str(value).strip(" .") else f"found {shown(value)}, which names nothing"
    try:
        DatasetConfig.model_validate({"id": name, "path": dataset.path})
    except ValidationError:
        reason = f"found {ascii(value)[:60]}, which cannot name a sub-dataset"
    if reason:
        mend = "use values of printable characters, and of less than 100 bytes with the id, or another column"
        raise _bad(dataset, f"the value of {column}: {reason}", mend, place)
    return dataset.model_copy(
        update={
            "id": name,
            "split_by": None,
            "where": {**(dataset.where or {}), column: value},
            "validation": of(dataset.validation),
            "test": of(dataset.test),
        }
    )


def _bad(dataset: DatasetConfig, found: str, mend: str, place: str | None = None) -> DataError:
    return DataError(complaint(found, mend, file=place, field=f"datasets.{dataset.id}.split_by"))
