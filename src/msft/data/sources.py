"""Where rows come from: JSON-lines files, everything that `datasets` reads, and reasoning-gym tasks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msft.config.problems import one_of, shown
from msft.config.schema import DatasetConfig, Where
from msft.core.errors import DataError, complaint
from msft.data.complaints import Complaints

BUILDERS = {".json": "json", ".parquet": "parquet", ".csv": "csv"}
REASONING_GYM = "reasoning_gym:"
GYM_SIZE = 500
"""Instances generated of a reasoning-gym task whose `config` gives no size."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it lies."""

    values: Mapping[str, Any]
    file: str
    line: int | None
    """1-based line, or None where the format has no lines."""
    number: int
    """1-based number within its source."""


class Source:
    """The rows of one data set's splits; each file, hub split or stream is read once."""

    def __init__(self, dataset: DatasetConfig, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.field = f"datasets.{dataset.id}"
        self._read: dict[tuple[str, str], list[Row]] = {}

    def rows(self, path: str | None = None, split: str | None = None, where: Where | None = None) -> list[Row]:
        """The rows of one split; what is None is the data set's own, `where` apart. Raises DataError."""
        path, split = path or self.dataset.path, split or self.dataset.split
        if (path, split) not in self._read:
            self._read[path, split] = self._all_rows(path, split)
        rows = self._read[path, split]
        if not rows:
            raise self._bad(f"{path} has no rows", "give rows, or remove this data set")
        return _taken(rows, where, self._bad) if where else rows

    def _bad(self, found: str, mend: str) -> DataError:
        return DataError(complaint(found, mend, field=self.field))

    def _all_rows(self, path: str, split: str) -> list[Row]:
        if path.startswith(REASONING_GYM):
            self._one_split_only(path, split)
            return self._generated(path)
        files = (
            sorted(map(str, Path(path).parent.glob(Path(path).name)))
            if "*" in path
            else [path]
            if Path(path).is_file()
            else []
        )
        suffix = Path(path).suffix
        if files and suffix == ".jsonl":
            self._one_split_only(path, split)
            complaints = Complaints(self.field)
            rows = [row for file in files for row in _json_lines(Path(file), complaints)]
            complaints.check()
            return rows
        if files and suffix in BUILDERS:
            self._one_split_only(path, split)
            return self._loaded(path, BUILDERS[suffix], data_files=files, split="train")
        if files:
            raise self._bad(f"{path} has no known ending", "use .jsonl, .json, .parquet or .csv")
        if "*" in path or suffix in {".jsonl", *BUILDERS} or path.startswith(("/", "./", "../", "~")):
            if not Path(path).is_dir():
                raise self._bad(f"there is no file {path}", "check the path (relative to the configuration file)")
        elif not Path(path).is_dir() and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path):
            raise self._bad(
                f"{shown(path)} is neither a file nor a hub id", "give a file, or a hub id such as owner/name"
            )
        return self._loaded(path, path, name=self.dataset.name, revision=self.dataset.revision, split=split)

    def _one_split_only(self, path: str, split: str) -> None:
        if split != "train":
            mend = "choose rows with where, such as {where: {split: test}}, or name another path"
            raise self._bad(f"{path} holds a single split, but split: {split} was asked for", mend)

    def _loaded(self, path: str, builder: str, **options: Any) -> list[Row]:
        import datasets

        try:
            table = datasets.load_dataset(builder, **options)
            return [Row(values, path, None, number) for number, values in enumerate(table, 1)]
        except Exception as error:  # the library and the network raise what they like
            reason = (str(error).strip().splitlines() or ["no message"])[0][:200]
            found = f"{path} (split {options['split']}) could not be read: {type(error).__name__}: {reason}"
            raise self._bad(found, "check path, name, revision and split, and that the hub can be reached") from error

    def _generated(self, path: str) -> list[Row]:
        """The stream of a reasoning-gym task without repeated questions, so that no question is in two splits."""
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError:
            raise self._bad("reasoning-gym is not installed", "pip install 'msft[reasoning-gym]'") from None
        task = path.removeprefix(REASONING_GYM)
        if task not in DATASETS:
            raise self._bad(f"reasoning-gym has no task {shown(task)}", one_of(task, sorted(DATASETS)))
        options = {"seed": self.seed, "size": GYM_SIZE, **(self.dataset.config or {})}
        try:
            entries = list(reasoning_gym.create_dataset(task, **options))
        except Exception as error:  # each task checks its own arguments in its own way
            found = f"{path} refused its config: {type(error).__name__}: {str(error)[:200]}"
            raise self._bad(found, "see the task's arguments in reasoning-gym") from error
        unique = {entry["question"]: entry for entry in reversed(entries)}
        kept = [entry for entry in entries if unique[entry["question"]] is entry]
        return [
            Row({**entry, "answer": None if entry["answer"] is None else str(entry["answer"])}, path, None, number)
            for number, entry in enumerate(kept, 1)
        ]


def _taken(rows: list[Row], where: Where, bad: Callable[[str, str], DataError]) -> list[Row]:
    columns = columns_of(rows)
    for column in where:
        if column not in columns:
            raise bad(f"where: no row has a column {shown(column)}", one_of(column, columns))

    def fits(row: Row) -> bool:
        for column, wanted in where.items():
            value = row.values.get(column)
            options = wanted if isinstance(wanted, tuple) else (wanted,)
            # True equals 1 in Python, but not in anybody's data.
            if not any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in options):
                return False
        return True

    kept = [row for row in rows if fits(row)]
    if not kept:
        found = f"where: none of the {len(rows)} rows of {rows[0].file} fits {shown(where)}"
        raise bad(found, "check the values, and that they have the type of the column (text in quotes)")
    return kept


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column that some row has, in order of appearance."""
    return list(dict.fromkeys(column for row in rows for column in row.values))


class _BadLineError(ValueError):
    """Found something that JSON or this library does not allow in a line."""


def _json_lines(path: Path, complaints: Complaints) -> list[Row]:
    """The rows of one file; what is wrong goes to `complaints` with its line, never with the row's content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        complaints.add(f"the file cannot be read ({error.strerror})", "check its permissions", file=str(path))
        return []
    if not content.strip():
        complaints.add("the file is empty", "give one JSON object a line", file=str(path))
    rows = []
    # Not splitlines(): texts may hold other line separators, JSON lines end with a line feed.
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            rows.append(Row(_json_object(raw), str(path), number, number))
        except _BadLineError as error:
            complaints.add(str(error), "give one JSON object a line", file=str(path), line=number)
        except UnicodeError:
            complaints.add("the line is not valid UTF-8 text", "save the file as UTF-8", file=str(path), line=number)
        except (ValueError, RecursionError) as error:
            reason = "a number or a nesting without end"
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg} at column {error.colno}"
            complaints.add(f"invalid JSON: {reason}", "give one JSON object a line", file=str(path), line=number)
    return rows


def _json_object(raw: bytes) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            raise _BadLineError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
        return values

    def constant(name: str) -> Any:
        raise _BadLineError(f"{name} is no JSON value")

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise _BadLineError(f"the number {shown(text)} is too large")
        return number

    text = raw.decode("utf-8")
    values = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=constant, parse_float=finite)
    if not isinstance(values, dict):
        raise _BadLineError(f"found a {type(values).__name__}, not an object")
    if "\\ud" in text.lower():  # half a surrogate pair is no text: tokenizers cannot take it
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    return values
