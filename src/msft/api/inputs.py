"""Writes models, tokenizers and data sets that were passed as objects to files in the run folder.

The run then reads them as it reads all files: with strict checks and fingerprints, again at a roll-back to the base
model, and again when it is resumed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import pyarrow as pa
from transformers import PreTrainedModel

from msft.api.adapter_base import name_base
from msft.api.listed_rows import table
from msft.api.passed_model import check_model, other_attention
from msft.core.errors import DataError, ModelError, RunError, complaint
from msft.core.plain_words import kind_of
from msft.data.splits import SPLIT_COLUMN, named_splits
from msft.data.tables import Table

Rows: TypeAlias = datasets.Dataset | Sequence[Mapping[str, Any]] | str | os.PathLike[str]
"""A sub-dataset's rows: a data set, a list of rows, or a path or hub id."""
Split: TypeAlias = Mapping[str, Rows] | None
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Inputs:
    """The arguments of a trainer, and the folder that they are written to."""

    folder: Path
    model: PreTrainedModel | str
    tokenizer: Any | None
    splits: Mapping[str, Split]
    """`train`, `validation` and `test`, each by sub-dataset."""
    adapter: bool = False
    """Whether an adapter is trained, and no weight of the model."""
    _said: list[str] = field(default_factory=list)
    """What was found when the files were written; for people."""

    def check(self) -> None:
        """Checks the arguments and writes nothing. Raises DataError or ModelError."""
        if not isinstance(self.model, str):
            check_model(self.model, adapter=self.adapter)
        if not isinstance(self.model, str) and self.tokenizer is None:
            found = "is missing, and where the model was loaded from there is no tokenizer that can be loaded"
            raise ModelError(complaint(found, "give the model's tokenizer", field="processing_class"))
        if self.tokenizer is not None and not callable(getattr(self.tokenizer, "save_pretrained", None)):
            named = repr(os.fspath(self.tokenizer)) if isinstance(self.tokenizer, (str, os.PathLike)) else "..."
            fix = f"give a tokenizer, AutoTokenizer.from_pretrained({named}), or omit it for that of the model"
            raise ModelError(complaint(f"found {kind_of(self.tokenizer)}", fix, field="processing_class"))
        for split, given in self.splits.items():
            name = {"train": "train_dataset", "validation": "eval_dataset"}.get(split, f"{split}_dataset")
            if split == "train" and not given:
                raise DataError(complaint("is missing", "give a dict of sub-datasets by name", field=name))
            if given is not None and not isinstance(given, Mapping):
                fix = "give a dict of sub-datasets by name, such as {'gsm8k': dataset, ...}"
                raise DataError(complaint(f"found {kind_of(given)}", fix, field=name))
            parts = sorted({*SPLITS} & given.keys()) if isinstance(given, datasets.DatasetDict) else []
            if parts:
                found = f"found a DatasetDict of splits ({', '.join(parts)}), which are no sub-datasets"
                fix = "give {'NAME': parts['train']} as train_dataset, and the others as eval_dataset and test_dataset"
                raise DataError(complaint(found, fix, field=name))
            for task, rows in (given or {}).items():
                self._check_rows(name, task, rows)

    @property
    def notes(self) -> list[str]:
        """What a run does not keep of the arguments, and need not refuse; for people."""
        note = other_attention(self.model)
        return ([] if note is None else [note]) + self._said

    def write(self) -> None:
        """Writes to files what was passed as objects."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not isinstance(self.model, str):
            self.model.save_pretrained(str(self._model))
            why = name_base(self.model, self._model) if self.adapter else None
            if why is not None:
                self._said.append(
                    f"The adapter will name the copy of the model in this run, {self._model}, as its base, "
                    f"because {why}. To use it elsewhere, take the copy along, or merge both: msft export RUN --merge"
                )
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(self._model if not isinstance(self.model, str) else self._tokenizer)
        for split, task, rows, file in self._objects():
            _write(rows, file, f"{split} rows of {task}")

    def check_unchanged(self, began: Mapping[str, Any]) -> None:
        """Raises RunError if a data set differs from the one that the run began with. The model is read from the run
        folder. `began`: the configuration of the run, by dotted key."""
        if not isinstance(self.model, str) and not self._model.is_dir():
            name = began.get("model.name_or_path")
            found = "found a model object, and the run began with a name"
            raise RunError(complaint(found, f"give model={name!r}", file=self.folder.parent, field="model"))
        with tempfile.TemporaryDirectory() as scratch:
            for split, task, rows, file in self._objects():
                again = Path(scratch) / "rows.parquet"
                _write(rows, again, f"{split} rows of {task}")
                if not file.is_file() or again.read_bytes() != file.read_bytes():
                    fix = "give the same rows, or another output_dir"
                    found = f"the {split} rows of {task} are not those that the run began with"
                    raise RunError(complaint(found, fix, file=file))

    def model_section(self) -> dict[str, Any]:
        """The `model` section of the configuration."""
        if not isinstance(self.model, str):
            return {"name_or_path": str(self._model)}
        return {"name_or_path": self.model} | ({} if self.tokenizer is None else {"tokenizer": str(self._tokenizer)})

    def dataset_sections(self) -> list[dict[str, Any]]:
        """The `datasets` section of the configuration, in the order of `train`."""
        train, validation, test = (self.splits[split] or {} for split in SPLITS)
        sections: list[dict[str, Any]] = []
        for task, rows in train.items():
            section: dict[str, Any] = {"id": task, "path": self._path("train", task, rows), **_by_split(rows)}
            for split, given in (("validation", validation), ("test", test)):
                if task in given:
                    section[split] = {"path": self._path(split, task, given[task])}
            sections.append(section)
        return sections

    @property
    def _model(self) -> Path:
        return self.folder / "model"

    @property
    def _tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    def _check_rows(self, name: str, task: str, rows: Rows) -> None:
        train = self.splits["train"] or {}
        if task not in train:
            fix = f"use a name of train_dataset: {', '.join(map(str, train))}"
            raise DataError(complaint("there is no such sub-dataset", fix, field=f"{name}[{task!r}]"))
        if not isinstance(rows, (datasets.Dataset, str, os.PathLike, list, tuple)):
            fix = "give a datasets.Dataset, a list of rows, or a path"
            raise DataError(complaint(f"found {kind_of(rows)}", fix, field=f"{name}[{task!r}]"))
        if isinstance(rows, datasets.Dataset) and rows.format["type"] == "custom":
            found = "found a data set with a transform (with_transform, set_transform), which is not applied to files"
            fix = "apply the same function with map: dataset.with_format(None).map(function, batched=True)"
            raise DataError(complaint(found, fix, field=f"{name}[{task!r}]"))
        odd = [row for row in rows if not isinstance(row, Mapping)] if isinstance(rows, (list, tuple)) else []
        if odd:
            found = f"found {kind_of(odd[0])} among the rows"
            raise DataError(complaint(found, "give every row as a dict", field=f"{name}[{task!r}]"))

    def _objects(self) -> list[tuple[str, str, Any, Path]]:
        """(split, sub-dataset, rows, file) of all rows that were passed as objects."""
        return [
            (split, task, rows, Path(self._path(split, task, rows)))
            for split, given in self.splits.items()
            for task, rows in (given or {}).items()
            if not isinstance(rows, (str, os.PathLike))
        ]

    def _path(self, split: str, task: str, rows: Rows) -> str:
        if isinstance(rows, (str, os.PathLike)):
            return os.fspath(rows)
        # Named by number, as the name of a sub-dataset need not be a valid file name.
        number = list(self.splits["train"] or {}).index(task)
        return str(self.folder / f"{number:02d}-{split}.parquet")


def _as_seen(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows with the columns that their format shows: `set_format(columns=...)` hides the others."""
    shown_columns = rows.column_names if rows.format["output_all_columns"] else rows.format["columns"]
    return rows.with_format(None).select_columns([name for name in rows.column_names if name in shown_columns])


def _by_split(rows: Rows) -> dict[str, Any]:
    """The splits of rows that name them in a column `split`, as `msft init` writes them for a file of such rows."""
    if isinstance(rows, datasets.Dataset):
        rows = _as_seen(rows)
        column = [SPLIT_COLUMN] if SPLIT_COLUMN in rows.column_names else []
        names = [row.values[SPLIT_COLUMN] for row in Table(rows.select_columns(column), "")] if column else []
    else:
        names = [] if isinstance(rows, (str, os.PathLike)) else [row.get(SPLIT_COLUMN) for row in rows]
    parts = named_splits(names)
    known = [name for found in parts.values() for name in found]
    if len(parts) < 2 or any(name not in known for name in names):
        return {}
    where = {part: {"where": {SPLIT_COLUMN: found}} for part, found in parts.items()}
    return where.pop("train") | where


def _write(rows: Any, file: Path, field: str) -> None:
    """Raises DataError if a value cannot be written as it was given."""
    made = _as_seen(rows) if isinstance(rows, datasets.Dataset) else table(rows, field)
    try:
        made.to_parquet(file)
    except pa.ArrowException as error:  # of a type that Parquet does not have, such as a dict without keys
        fix = "leave out the column whose type the error names, or give it as text: str(value)"
        raise DataError(complaint(f"the rows cannot be written ({error})", fix, field=field)) from error
