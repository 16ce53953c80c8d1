"""Train, validation and test rows of one data set, each determined by (seed, id) only (design 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msft.config.aggregate import AggregateConfig
from msft.config.dataset_section import DatasetConfig, SplitConfig
from msft.core.clock import exact
from msft.core.errors import DataError, complaint
from msft.core.plain_words import many
from msft.data.rows import Rows, Subset
from msft.data.sources import Source
from msft.data.streams import raw_bits

T = TypeVar("T")

SPLIT_COLUMN = "split"
"""The column of rows that names the split of each."""
SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
"""Names of splits in files and rows, and their meaning."""
DEFAULT_FRACTION = 0.1
DEFAULT_LEAST = 50
"""Minimum number of validation examples carved by default, if this leaves half of the rows to train on."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows in the order of their source. No row is in two splits, unless the configuration reads it twice."""

    train: Rows
    validation: Rows
    test: Rows
    """Empty if none is configured."""


def split(dataset: DatasetConfig, source: Source, seed: int) -> Splits:
    """The rows of each split; an aggregate has none to train on. Raises DataError."""
    rows = source.rows(where=dataset.where)
    if isinstance(dataset, AggregateConfig):
        return _items_only(dataset, rows, source, seed)
    used = used_rows(dataset, source)
    # In a group, others give the validation items of a data set without `validation`.
    shares = dataset.group is not None and dataset.validation is None
    sizes = {
        "test": _carved_size(dataset.test, used) if dataset.test else 0,
        "validation": 0 if shares else _carved_size(dataset.validation, used),
    }
    carved = sum(sizes.values())
    if carved >= len(rows):
        held_out = f"{sizes['validation']} for validation, {sizes['test']} for test"
        found = f"{many(len(rows), 'row')} would all be held out: {held_out}"
        raise DataError(complaint(found, "carve fewer or give more rows", field=dataset.field))
    order = _shuffled(len(rows), seed, dataset.id, "carve")
    test, validation, train = order[: sizes["test"]], order[sizes["test"] : carved], order[carved:]
    return Splits(
        train=_sampled_rows(Subset(rows, np.sort(train)), dataset.max_samples, seed, dataset.id, "train"),
        validation=_given(dataset, dataset.validation, source, seed, "validation") or Subset(rows, np.sort(validation)),
        test=_given(dataset, dataset.test, source, seed, "test") or Subset(rows, np.sort(test)),
    )


def _items_only(dataset: AggregateConfig, rows: Rows, source: Source, seed: int) -> Splits:
    """All rows are validation items, but for a test split that is carved of them."""
    tests = _carved_size(dataset.test, used_rows(dataset, source)) if dataset.test else 0
    order = _shuffled(len(rows), seed, dataset.id, "carve")
    nothing = Subset(rows, np.empty(0, np.int64))
    return Splits(
        train=nothing,
        validation=_sampled_rows(
            Subset(rows, np.sort(order[tests:])), dataset.max_samples, seed, dataset.id, "validation"
        ),
        test=_given(dataset, dataset.test, source, seed, "test") or Subset(rows, np.sort(order[:tests])),
    )


def used_rows(dataset: DatasetConfig, source: Source) -> int:
    """The number of rows of which carved splits are a share: of a large file of which max_samples selects few rows,
    these few. Raises DataError."""
    rows = len(source.rows(where=dataset.where))
    return min(rows, dataset.max_samples or rows)


def default_size(rows: int) -> int:
    """Validation items that are carved of these rows by default."""
    return min(max(_share(DEFAULT_FRACTION, rows), DEFAULT_LEAST), rows // 2)


def named_splits(names: Iterable[object]) -> dict[str, list[str]]:
    """Train, validation or test -> its names among these values of a `split` column; empty without training rows."""
    parts: dict[str, list[str]] = {}
    for name in sorted({name for name in names if isinstance(name, str)}):
        if name.casefold() in SPLIT_NAMES:
            parts.setdefault(SPLIT_NAMES[name.casefold()], []).append(name)
    return parts if "train" in parts else {}


def mixed_splits(dataset: DatasetConfig, rows: Rows) -> list[str]:
    """A note if training rows say of themselves that some are for validation or test."""
    if SPLIT_COLUMN in (dataset.where or {}) or SPLIT_COLUMN not in rows[0].values:
        return []
    parts = named_splits(row.values.get(SPLIT_COLUMN) for row in rows)
    if len(parts) < 2:
        return []
    names = ", ".join(name for found in parts.values() for name in found)
    first = parts["train"][0]
    fix = f"where: {{{SPLIT_COLUMN}: {first}}}"
    python = f"{{'where': {{{SPLIT_COLUMN!r}: {first!r}}}}}"
    python = (
        f"aggregate={python}"
        if isinstance(dataset, AggregateConfig)
        else f"dataset_kwargs={{{dataset.id!r}: {python}}}"
    )
    return [
        f"the column {SPLIT_COLUMN} names {names}, but all rows are used. Fix: choose rows with {fix} (from Python: "
        f"{python})"
    ]


def sampled(size: int, count: int | None, seed: int, *key: str) -> NDArray[np.int64]:
    """[min(size, count)] the positions of a sample, increasing; a larger sample contains every smaller one."""
    return np.sort(_shuffled(size, seed, *key, "sample")[:count])


def _sampled_rows(rows: Rows, count: int | None, seed: int, *key: str) -> Rows:
    if count is None or count >= len(rows):
        return rows
    return Subset(rows, sampled(len(rows), count, seed, *key))


def _shuffled(count: int, seed: int, *key: str) -> NDArray[np.int64]:
    """[count] a permutation."""
    return np.argsort(raw_bits(count, seed, *key), kind="stable")


def _carved_size(wanted: SplitConfig | None, rows: int) -> int:
    """Rows to carve; 0 for a split that is read from elsewhere."""
    if wanted is not None and wanted.given:
        return 0
    if wanted is None or (wanted.fraction is None and wanted.max_samples is None):
        return default_size(rows)
    limits = [] if wanted.max_samples is None else [wanted.max_samples]
    return min([*limits, *([] if wanted.fraction is None else [max(1, _share(wanted.fraction, rows))])])


def _share(fraction: float, rows: int) -> int:
    return round(Fraction(exact(fraction)) * rows)


def _given(dataset: DatasetConfig, wanted: SplitConfig | None, source: Source, seed: int, kind: str) -> Rows | None:
    """The rows of a split that is read, or None for one that is carved."""
    if wanted is None or not wanted.given:
        return None
    fix = "name another path, split or where"
    if source.are_same_rows(dataset, wanted):
        found = f"the {kind} split is the {dataset.own_rows} rows themselves"
        raise DataError(complaint(found, fix, field=f"{dataset.field}.{kind}"))
    other = dataset.validation if kind == "test" else None
    if other is not None and other.given and source.are_same_rows(other, wanted):
        found = "the test split is the validation rows themselves, which choose the final model"
        fix += ", or carve validation from the training rows with fraction or max_samples alone"
        raise DataError(complaint(found, fix, field=f"{dataset.field}.test"))
    rows = source.rows(wanted.path, wanted.split, wanted.where, kind)
    return _sampled_rows(rows, wanted.max_samples, seed, dataset.id, kind)
