"""Columnar sources: Parquet files, and data of the `datasets` library, all as memory-mapped Arrow."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from msft.core.errors import first_line, in_a_line
from msft.data.arrow_values import converter
from msft.data.complaints import Complaints
from msft.data.rows import Row, Rows
from msft.data.strict_json import HEAD, impostor

BATCH = 1000
"""Number of rows read from Arrow at once."""


class Table(Rows):
    """The rows of a `datasets.Dataset`, which is a memory-mapped file."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        # As Arrow, images and sounds stay undecoded: they are not learned, and their libraries may not be installed.
        self._content = dataset.with_format("arrow")
        self._converters = {
            column: convert for column, of in dataset.features.items() if (convert := converter(of)) is not None
        }

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
            columns = self._content[batch].to_pydict()
            for column, convert in self._converters.items():
                columns[column] = list(map(convert, columns[column]))
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
            fix = "the file was cut off or damaged: write or fetch it again"
            complaints.add(f"the footer cannot be read ({first_line(error)})", fix, file=str(file))
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
                found = f"row group {group + 1} of {opened.num_row_groups} cannot be decoded ({first_line(error)})"
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
    complaints.add(found, known.fix if known else "give a .parquet file that a library wrote", file=str(file))
    return False


def _check_schema(file: Path, schema: Any, first: tuple[Path, Any], complaints: Complaints) -> None:
    """Checks that every file has the columns of the first one, once each, with the same types."""
    if twice := [name for name in dict.fromkeys(schema.names) if schema.names.count(name) > 1]:
        complaints.add(f"the column {twice[0]!r} appears twice", "rename one", file=str(file))
        return
    earlier, wanted = first
    if len({*wanted.names}) < len(wanted.names):
        return
    for name in dict.fromkeys([*wanted.names, *schema.names]):
        types = [str(s.field(name).type) if name in s.names else "missing" for s in (wanted, schema)]
        if types[0] != types[1]:
            found = f"column {name!r} is {types[1]} here, but {types[0]} in {earlier.name}"
            complaints.add(found, "give all files the same columns and types", file=str(file))


def csv_options(folder: str, split: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with which the `datasets` library reads the CSV files of a folder as texts, as `CsvRows` does; none for
    other files, and none where the folder's README.md declares types."""
    import datasets
    from datasets.packaged_modules.csv.csv import Csv

    builder = datasets.load_dataset_builder(folder, **options)
    if not isinstance(builder, Csv) or builder.config.features or builder.info.features:
        return {}
    first: dict[str, Any] = next(iter(datasets.load_dataset(folder, split=split, streaming=True, **options)), {})
    texts = datasets.Features({column: datasets.Value("string") for column in first})
    return {"features": texts, "keep_default_na": False, "na_values": [""]} if first else {}


def library_trouble(error: BaseException, *, local: bool) -> tuple[str, str]:
    """What an error of the `datasets` library says, with its causes, and how to fix it."""
    import datasets

    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    for cause in chain:
        if isinstance(cause, OSError) and _is_of_cache(cause, cache):
            found = f"the cache folder {cache} of the datasets library cannot be written ({cause.strerror})"
            return found, "make room, or set HF_DATASETS_CACHE to a folder that can be written"
    told = [chain[0], chain[-1]] if len(chain) > 1 else chain
    reason = ": ".join(in_a_line(cause) for cause in told)
    if local:
        return reason, "check that the files are whole, and what a library of their kind says of them"
    return reason, "check path, name, revision and split, and that the hub can be reached"


def _is_of_cache(error: OSError, cache: Path) -> bool:
    if error.errno == errno.ENOSPC:
        return True
    place = Path(str(error.filename or ""))
    return place.is_absolute() and (place.is_relative_to(cache) or cache.is_relative_to(place))
