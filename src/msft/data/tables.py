"""Columnar sources: Parquet and CSV files, and data of the `datasets` library, all as memory-mapped Arrow."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from msft.data.complaints import Complaints
from msft.data.rows import Row, Rows
from msft.data.strict_json import HEAD, impostor

BATCH = 1000
"""Number of rows read from Arrow at once."""
BUILDERS = {".parquet": "parquet", ".csv": "csv"}
OPTIONS: dict[str, dict[str, Any]] = {
    # Otherwise the texts "None", "NA", "null" and "nan" would be read as missing.
    ".csv": {"keep_default_na": False, "na_values": [""]},
    ".parquet": {},
}


class Table(Rows):
    """The rows of a `datasets.Dataset`, which is a memory-mapped file."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def identity(self) -> str:
        """Identifies the content: the library's fingerprint."""
        return str(self._dataset._fingerprint)

    @property
    def nbytes(self) -> int:
        return int(self._dataset.data.nbytes)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        ahead = iter(indices)
        while batch := list(islice(ahead, BATCH)):
            columns = self._dataset[batch]
            for position, index in enumerate(batch):
                values = {column: content[position] for column, content in columns.items()}
                yield Row(values, self._name, None, index + 1)


def check_parquet(files: Sequence[Path], complaints: Complaints) -> None:
    """Reads every page of every file once, one batch at a time; problems are added to `complaints`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Damaged lengths, names and encodings can raise any of these.
    broken = (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException)
    first: tuple[Path, Any] | None = None
    for file in files:
        if not _has_magic(file, complaints):
            continue
        try:
            opened = pq.ParquetFile(file, page_checksum_verification=True)
        except broken as error:
            mend = "the file was cut off or damaged: write or fetch it again"
            complaints.add(f"the footer cannot be read ({_reason(error)})", mend, file=str(file))
            continue
        if not opened.metadata.num_rows:
            complaints.add("the file has no rows", "give rows, or remove the file", file=str(file))
        first = first or (file, opened.schema_arrow)
        _check_schema(file, opened.schema_arrow, first, complaints)
        for group in range(opened.num_row_groups):
            try:
                for batch in opened.iter_batches(row_groups=[group]):
                    batch.validate(full=True)
            except broken as error:
                found = f"row group {group + 1} of {opened.num_row_groups} cannot be decoded ({_reason(error)})"
                complaints.add(found, "the file is damaged: write or fetch it again", file=str(file))


def _has_magic(file: Path, complaints: Complaints) -> bool:
    try:
        with file.open("rb") as handle:
            head = handle.read(HEAD)
    except OSError as error:
        complaints.add(f"the file cannot be read ({error.strerror})", "check its permissions", file=str(file))
        return False
    if head[:4] == b"PAR1":
        return True
    known = impostor(head)
    found = str(known) if known else ("the file is not a Parquet file" if head else "the file is empty")
    complaints.add(found, known.mend if known else "give a .parquet file that a library wrote", file=str(file))
    return False


def _check_schema(file: Path, schema: Any, first: tuple[Path, Any], complaints: Complaints) -> None:
    """Checks that every file has the columns of the first one, with the same types."""
    earlier, wanted = first
    for name in dict.fromkeys([*wanted.names, *schema.names]):
        types = [str(s.field(name).type) if name in s.names else "missing" for s in (wanted, schema)]
        if types[0] != types[1]:
            found = f"column {name!r} is {types[1]} here, but {types[0]} in {earlier.name}"
            complaints.add(found, "give all files the same columns and types", file=str(file))


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def check_csv(files: Sequence[Path], complaints: Complaints) -> None:
    """Checks encoding, header and the number of fields of every record; problems are added to `complaints`."""
    for file in files:
        try:
            with file.open("rb") as handle:
                known = impostor(handle.read(HEAD))
            if known:
                complaints.add(str(known), known.mend, file=str(file))
                continue
            with file.open(encoding="utf-8-sig", newline="") as text:
                _check_records(text, file, complaints)
        except UnicodeDecodeError:
            complaints.add("the file is not valid UTF-8", "save the file as UTF-8", file=str(file))
        except OSError as error:
            complaints.add(f"the file cannot be read ({error.strerror})", "check its permissions", file=str(file))


def _check_records(text: Iterable[str], file: Path, complaints: Complaints) -> None:
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        if not any(header):
            complaints.add("the file is empty", "give a header and rows", file=str(file))
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            complaints.add(f"the column {twice[0][:60]!r} appears twice", "rename one", file=str(file), line=1)
        records = 0
        for record in reader:
            records += bool(record)
            if record and len(record) != len(header):
                found = f"the record has {len(record)} fields, the header {len(header)}"
                mend = 'put texts with commas or line breaks in "quotes"'
                complaints.add(found, mend, file=str(file), line=reader.line_num)
        if not records and any(header):
            complaints.add("the file has no rows", "give rows, or remove the file", file=str(file))
    except csv.Error as error:
        mend = 'close every quote, write " inside one as ""'
        complaints.add(f"invalid CSV: {error}", mend, file=str(file), line=reader.line_num)
