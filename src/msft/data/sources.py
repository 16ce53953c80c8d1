"""Sources of rows: files, data of the `datasets` library, and reasoning-gym tasks."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Set
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from msft.config.dataset_section import DatasetConfig, Scalar, SplitConfig, Where
from msft.config.problems import one_of, shown
from msft.core.errors import DataError, complaint
from msft.data.addresses import fetched, is_address
from msft.data.complaints import Complaints
from msft.data.csv_files import TEXT_ONLY, CsvRows
from msft.data.gym import generate
from msft.data.json_files import JsonLines, check_not_wrapped, is_array, json_rows
from msft.data.local_files import ending, local_files, same_file
from msft.data.rows import IN_MEMORY, Listed, Row, Rows, Subset, survey
from msft.data.tables import Table, check_parquet, csv_options, library_trouble
from msft.system.files import sha256

REASONING_GYM = "reasoning_gym:"
GYM_SIZE = 500
"""Number of examples generated for a reasoning-gym task whose `config` gives no size."""


class Source:
    """The rows of one data set's splits; each file, hub split or stream is read once."""

    def __init__(self, dataset: DatasetConfig, seed: int, *, drop: bool = False) -> None:
        self.dataset = dataset
        self.seed = seed
        self.drop = drop
        """Whether bad rows are left out instead of being errors (`data.bad_rows`)."""
        self.field = dataset.field
        """Of which the rows are read now, for messages."""
        self.notes: list[str] = []
        """Notes for people about the files that were read so far."""
        self.dropped: list[str] = []
        """Place and reason of every line that was read so far and holds no row."""
        self._read: dict[tuple[str, str], Rows] = {}
        self._text_only: set[str] = set()
        """Paths whose values are all texts."""
        self._fetched: dict[str, list[Path]] = {}
        self._digests: dict[Path, str] = {}

    def rows(self, path: str | None = None, split: str | None = None, where: Where | None = None, of: str = "") -> Rows:
        """The rows of one split; `path` and `split` default to the data set's own. `of`: the field that asks for them,
        such as `test`. Raises DataError."""
        self.field = f"{self.dataset.field}{of and '.'}{of}"
        path, split = path or self.dataset.path, split or self.dataset.split
        if (path, split) not in self._read:
            self._read[path, split] = self._all_rows(path, split)
        rows = self._read[path, split]
        if not rows:
            raise self._bad(f"{path} has no rows", "give rows, or remove this data set")
        return self._taken(rows, where, _same_text if path in self._text_only else _same) if where else rows

    def leave_out(self, path: str | None, split: str | None, bad: Set[tuple[str, int]]) -> None:
        """From now on, `rows` of these arguments are without the rows whose (file, number) is in `bad`."""
        key = path or self.dataset.path, split or self.dataset.split
        rows = self._read[key]
        kept = [index for index, row in enumerate(rows) if (row.file, row.number) not in bad]
        self._read[key] = Subset(rows, np.array(kept, np.int64))

    def are_same_rows(self, one: DatasetConfig | SplitConfig, other: SplitConfig) -> bool:
        """Whether two splits that are read have the same rows, even under another name or through a link; `max_samples`
        is not looked at."""
        if (one.where or None) != (other.where or None):
            return False
        places = [(each.path or self.dataset.path, each.split or self.dataset.split) for each in (one, other)]
        if places[0] == places[1]:
            return True
        if any(path.startswith(REASONING_GYM) for path, _ in places):
            return False
        files = [self._files(*place) for place in places]
        if files[0] is None or files[1] is None or len(files[0]) != len(files[1]):
            return False
        return all(same_file(one, other) for one, other in zip(files[0], files[1], strict=True))

    @property
    def size(self) -> int:
        """Bytes of all that this data set reads. Raises DataError."""
        return sum(self._of(path, split)[0] for path, split in self._places())

    @property
    def identity(self) -> str:
        """Identifies the content of all that this data set reads, for files by SHA-256. Raises DataError."""
        return "\n".join(f"{path} {split} {self._of(path, split, digest=True)[1]}" for path, split in self._places())

    def _places(self) -> list[tuple[str, str]]:
        """Path and split of everything that is read."""
        read = [split for split in (self.dataset.validation, self.dataset.test) if split is not None and split.given]
        mine = (self.dataset.path, self.dataset.split)
        return list(dict.fromkeys([mine, *((split.path or mine[0], split.split or mine[1]) for split in read)]))

    def _of(self, path: str, split: str, *, digest: bool = False) -> tuple[int, str]:
        """Size in bytes and, with `digest`, the identity of the content."""
        if path.startswith(REASONING_GYM):
            self.rows(path, split)  # raises DataError if the library is missing
            return 0, version("reasoning-gym")
        files = self._files(path, split)
        if files is not None:
            size = sum(file.stat().st_size for file in files)
            return size, " ".join(f"{file} {self._digest(file)}" for file in files) if digest else ""
        table = self.rows(path, split)
        return (table.nbytes, table.identity) if isinstance(table, Table) else (0, "")

    def _digest(self, file: Path) -> str:
        """SHA-256 of a file, read once."""
        if file not in self._digests:
            self._digests[file] = sha256(file)
        return self._digests[file]

    def _bad(self, found: str, fix: str) -> DataError:
        return DataError(complaint(found, fix, field=self.field))

    def _all_rows(self, path: str, split: str) -> Rows:
        if path.startswith(REASONING_GYM):
            if split != "train":
                fix = "carve with max_samples or fraction, or name another path"
                raise self._bad(f"{path} holds a single split, but split: {split} was asked for", fix)
            return Listed(self._generated(path))
        files = self._files(path, split)
        if files is None:
            return self._loaded(path, path, split, name=self.dataset.name, revision=self.dataset.revision)
        complaints = Complaints(self.field, drop=self.drop)
        rows = self._rows_of(path, files, complaints)
        complaints.check()
        self.dropped += complaints.dropped
        return rows

    def _files(self, path: str, split: str) -> list[Path] | None:
        """As `local_files`, also of files at an address, which are fetched once."""
        if not is_address(path):
            return local_files(path, split, self.field, self.notes)
        if split != "train":
            fix = "choose rows with where, such as {where: {split: test}}, or name another path"
            raise self._bad(f"{path} holds a single split, but split: {split} was asked for", fix)
        if path not in self._fetched:
            self._fetched[path] = fetched(path, self.field)
            copies = [str(file) for file in self._fetched[path]]
            self.notes.append(f"{path} was copied to {', '.join(copies[:3])}{', ...' if len(copies) > 3 else ''}")
        return self._fetched[path]

    def _rows_of(self, path: str, files: list[Path], complaints: Complaints) -> Rows:
        """The rows of files of one kind; problems are added to `complaints`."""
        suffix = ending(files[0])
        if suffix == ".json" and all(map(is_array, files)):
            return Listed([row for file in files for row in json_rows(file, complaints)])
        if suffix == ".parquet":
            check_parquet(files, complaints)
            complaints.check()
            # The library identifies files that it has converted by time and size; this name identifies their content.
            content = hashlib.sha256("".join(map(self._digest, files)).encode()).hexdigest()
            names = [str(file) for file in files]
            return self._loaded(path, "parquet", "train", data_files=names, name=f"content-{content}")
        if suffix in TEXT_ONLY:
            self._text_only.add(path)
            records = CsvRows(files, complaints, self.notes)
            return records if len(records) > IN_MEMORY else Listed(list(records))
        if suffix == ".json":
            for file in files:
                check_not_wrapped(file, complaints)
            complaints.check()
        lines = JsonLines(files, complaints)
        return lines if len(lines) > IN_MEMORY else Listed(list(lines))

    def _loaded(self, path: str, builder: str, split: str, **options: Any) -> Table:
        import datasets

        folder = Path(builder)
        try:
            datasets.disable_progress_bars()  # they would disturb the display
            if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
                saved = datasets.load_from_disk(path)
                return Table(saved[split] if isinstance(saved, datasets.DatasetDict) else saved, path)
            if folder.is_dir() and (texts := csv_options(builder, split, options)):
                self._text_only.add(path)
                options |= texts
            return Table(datasets.load_dataset(builder, split=split, **options), path)
        except Exception as error:  # the library and the network may raise anything
            local = builder == "parquet" or folder.exists()
            reason, fix = library_trouble(error, local=local)
            raise self._bad(f"{path} (split {split}) could not be read: {reason}", fix) from error

    def _generated(self, path: str) -> list[Row]:
        """The rows of a reasoning-gym task without repeated questions, so that no question is in two splits."""
        task = path.removeprefix(REASONING_GYM)
        options = {"seed": self.seed, "size": GYM_SIZE, **(self.dataset.config or {})}
        try:
            made = generate(task, options)
        except ImportError:
            raise self._bad("reasoning-gym is not installed", "pip install 'msft[reasoning-gym]'") from None
        if "tasks" in made:
            raise self._bad(f"reasoning-gym has no task {shown(task)}", one_of(task, made["tasks"]))
        if "refused" in made:
            raise self._bad(
                f"{path} refused its config: {made['refused']}", "see the task's arguments in reasoning-gym"
            )
        entries = made["rows"]
        unique = {entry["question"]: entry for entry in reversed(entries)}
        kept = [entry for entry in entries if unique[entry["question"]] is entry]
        return [
            Row({**entry, "answer": None if entry["answer"] is None else str(entry["answer"])}, path, None, number)
            for number, entry in enumerate(kept, 1)
        ]

    def _taken(self, rows: Rows, where: Where, same: Callable[[Any, Scalar], bool]) -> Rows:
        known = survey(rows).columns
        for column in where:
            if column not in known:
                raise self._bad(f"where: no row has a column {shown(column)}", one_of(column, known))
        try:
            kept = [number for number, row in enumerate(rows) if _fits(row, where, same)]
        except ValueError as error:
            raise self._bad(str(error), "give the texts that you mean, each in quotes") from None
        if not kept:
            found = f"where: none of the {len(rows)} rows of {rows[0].file} fits {shown(where)}"
            there = "; ".join(f"{column} has {_some(rows, column)}" for column in where)
            raise self._bad(found, f"{there}: name one of these, text in quotes, classes by name")
        return Subset(rows, np.array(kept, np.int64))


def _some(rows: Rows, column: str) -> str:
    """Some of a column's values, in the order of the rows."""
    found = list(dict.fromkeys(shown(row.values.get(column)) for row in itertools.islice(rows, 1000)))
    return f"{', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"


def _fits(row: Row, where: Where, same: Callable[[Any, Scalar], bool]) -> bool:
    for column, wanted in where.items():
        value = row.values.get(column)
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        # Texts first: a number that has other forms is no problem where these are listed, too.
        if not any(same(value, option) for option in sorted(options, key=lambda option: not isinstance(option, str))):
            return False
    return True


def _same(value: Any, option: Scalar) -> bool:
    # True equals 1 in Python, but data sets mean different values by them.
    return bool(value == option) and isinstance(value, bool) == isinstance(option, bool)


def _same_text(value: str | None, option: Scalar) -> bool:
    """Whether a text of a file is the option, or its number or truth value as text. Raises ValueError for a number that
    equals the text in value only."""
    if value is None or option is None or isinstance(option, str):
        return value == option
    if isinstance(option, bool):
        return value.casefold() == str(option).casefold()
    if value == str(option):
        return True
    try:
        equal = float(value) == option
    except ValueError:
        return False
    if equal:
        raise ValueError(f"where: the number {option} is also written as the text {shown(value)}")
    return False
