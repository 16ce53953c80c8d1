"""`split_by`: one entry of the configuration, a sub-dataset for each value of a column."""

from __future__ import annotations

import re
import unicodedata

from pydantic import ValidationError

from msft.config.problems import one_of, shown
from msft.config.schema import DatasetConfig, Scalar, SplitConfig
from msft.core.errors import DataError, complaint
from msft.data.rows import survey
from msft.data.sources import Source


def parts(dataset: DatasetConfig, source: Source) -> tuple[list[DatasetConfig], list[str]]:
    """The data set's sub-datasets, ordered by value, and what people should know of them; itself without `split_by`.

    Raises DataError where the column is not there, or a value cannot name a sub-dataset.
    """
    if dataset.split_by is None:
        return [dataset], []
    column = dataset.split_by
    counts, missing = _counts(dataset, source, column)
    made = [_part(dataset, column, value) for value in sorted(counts, key=lambda value: (str(type(value)), value))]
    folded: dict[str, str] = {}
    for part in made:
        name = unicodedata.normalize("NFKC", part.id).casefold()
        if name in folded:
            raise _bad(dataset, f"two values would both name {shown(part.id)}", "make them the same, or more different")
        folded[name] = part.id
    least = min(counts, key=lambda value: counts[value])
    notes = [f"{len(made)} sub-datasets by {column}; the smallest, {shown(least)}, has {counts[least]} rows"]
    if missing:
        notes.append(f"{missing} rows without {column} belong to none of the sub-datasets")
    return made, notes


def _counts(dataset: DatasetConfig, source: Source, column: str) -> tuple[dict[str | int | float, int], int]:
    rows = source.rows(where=dataset.where)
    counts: dict[str | int | float, int] = {}
    missing = 0
    for row in rows:
        value = row.values.get(column)
        if value is None:
            missing += 1
        elif isinstance(value, str | int | float):
            counts[value] = counts.get(value, 0) + 1
        else:
            found = f"{row.place}: {column} is a {type(value).__name__}, which names no sub-dataset"
            raise _bad(dataset, found, "name a column of texts or numbers")
    if not counts:
        raise _bad(dataset, f"no row has a column {shown(column)}", one_of(column, survey(rows).columns))
    return counts, missing


def _part(dataset: DatasetConfig, column: str, value: Scalar) -> DatasetConfig:
    """The data set with the rows of one value; splits that are read take theirs."""

    def of(split: SplitConfig | None) -> SplitConfig | None:
        if split is None or not split.given:
            return split
        return split.model_copy(update={"where": {**(split.where or {}), column: value}})

    name = re.sub(r"[/\\]", "-", f"{dataset.id}.{value}".strip())
    try:
        DatasetConfig.model_validate({"id": name, "path": dataset.path})
    except ValidationError:
        found = f"the value {shown(value)} cannot name a sub-dataset"
        raise _bad(dataset, found, "use values of at most 100 printable characters") from None
    return dataset.model_copy(
        update={
            "id": name,
            "split_by": None,
            "where": {**(dataset.where or {}), column: value},
            "validation": of(dataset.validation),
            "test": of(dataset.test),
        }
    )


def _bad(dataset: DatasetConfig, found: str, mend: str) -> DataError:
    return DataError(complaint(found, mend, field=f"datasets.{dataset.id}.split_by"))
