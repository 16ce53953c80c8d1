"""`split_by`: makes a sub-dataset of each value of a column from one data set of the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ValidationError

from msft.config.dataset_section import DatasetConfig, Scalar, SplitConfig
from msft.config.problems import folded, not_portable, one_of, shown
from msft.core.errors import DataError, complaint
from msft.core.plain_words import kind_of, many
from msft.data.arrow_values import ClassName
from msft.data.complaints import note_of_dropped
from msft.data.rows import survey
from msft.data.sources import Source

UNSAFE = re.compile(r'[/\\<>:"|?*]')
"""Characters that some system does not allow in file names."""


def parts(dataset: DatasetConfig, source: Source) -> tuple[list[DatasetConfig], list[str]]:
    """The sub-datasets of a data set, ordered by value, and notes for people; without `split_by`, the data set itself.

    Raises DataError if no row has the column, or if a value cannot name a sub-dataset.
    """
    if dataset.split_by is None:
        return [dataset], []
    column = dataset.split_by
    seen, missing = _values(dataset, source, column)
    ordered = sorted(seen, key=lambda one: (str(type(one.value)), one.value))
    made = [_part(dataset, column, one.value, one.place) for one in ordered]
    named: dict[str, Scalar] = {}
    for part, one in zip(made, ordered, strict=True):
        name = folded(part.id)
        if name in named:
            found = f"{shown(named[name])} and {shown(one.value)} would both name {shown(part.id)}"
            raise _bad(dataset, found, "make the two values the same, or more different", one.place)
        named[name] = one.value
    least = min(seen, key=lambda one: one.rows)
    smallest = f"the smallest, {shown(least.value)}, has {many(least.rows, 'row')}"
    notes = [f"{many(len(made), 'sub-dataset')} by {column}; {smallest}"]
    # Lines that hold no row belong to none of the sub-datasets.
    lines, source.dropped = source.dropped, []
    notes += note_of_dropped(lines, missing + sum(one.rows for one in seen) + len(lines), dataset.field, "lines")
    if missing:
        notes.append(
            f"{many(missing, 'row')} without {column} {'belongs' if missing == 1 else 'belong'} to none of the "
            "sub-datasets"
        )
    return made, notes


@dataclass(slots=True)
class _Value:
    """A value of the column."""

    value: str | int | float
    place: str
    """Of its first row."""
    rows: int = 0


def _values(dataset: DatasetConfig, source: Source, column: str) -> tuple[list[_Value], int]:
    """The values in order of appearance, and the number of rows without one."""
    rows = source.rows(where=dataset.where)
    seen: dict[tuple[bool, str | int | float], _Value] = {}
    missing = 0
    for row in rows:
        value = row.values.get(column)
        if value is None:
            missing += 1
        elif isinstance(value, str | int | float):
            value = str(value) if isinstance(value, ClassName) else value
            # 1 and true are equal in Python.
            seen.setdefault((isinstance(value, bool), value), _Value(value, row.place)).rows += 1
        else:
            found = f"{column} is {kind_of(value)}, which cannot name a sub-dataset"
            raise _bad(dataset, found, "name a column of texts or numbers", row.place)
    if not seen:
        raise _bad(dataset, f"no row has a column {shown(column)}", one_of(column, survey(rows).columns))
    return list(seen.values()), missing


def _part(dataset: DatasetConfig, column: str, value: Scalar, place: str) -> DatasetConfig:
    """The data set with the rows of one value, first seen at `place`; splits that are read keep only that value, too.

    Characters that file names cannot have, which are common in headings (`What?`, `b/c`), become hyphens in the name.
    Raises DataError for a value that is blank, too long for a name, or has control or direction marks.
    """

    def of(split: SplitConfig | None) -> SplitConfig | None:
        if split is None or not split.given:
            return split
        return split.model_copy(update={"where": {**(split.where or {}), column: value}})

    name = f"{dataset.id}.{UNSAFE.sub('-', str(value)).strip(' .')}"
    reason = not_portable(name) if str(value).strip(" .") else f"found {shown(value)}, which gives an empty name"
    try:
        DatasetConfig.model_validate({"id": name, "path": dataset.path})
    except ValidationError:
        reason = f"found {ascii(value)[:60]}, which cannot name a sub-dataset"
    if reason:
        fix = "use values of printable characters, and of less than 100 bytes with the id, or another column"
        raise _bad(dataset, f"the value of {column}: {reason}", fix, place)
    return dataset.model_copy(
        update={
            "id": name,
            "split_by": None,
            "where": {**(dataset.where or {}), column: value},
            "validation": of(dataset.validation),
            "test": of(dataset.test),
        }
    )


def _bad(dataset: DatasetConfig, found: str, fix: str, place: str | None = None) -> DataError:
    return DataError(complaint(found, fix, file=place, field=f"{dataset.field}.split_by"))
