"""Reader of .csv and .tsv with line numbers: every value is the text that the file has, and a blank field is null.

The `csv` builder of `datasets` is not used because pandas gives types to columns by the looks of their values: 00501
would become 501, and one blank would make 7 a 7.0.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from msft.data.complaints import Complaints
from msft.data.json_files import LONGEST_LINE
from msft.data.local_files import ending
from msft.data.rows import READ_AHEAD, InFiles, Row
from msft.data.strict_json import HEAD, BadJsonError, decoded, impostor, without_mark

TEXT_ONLY = (".csv", ".tsv")
"""Endings of files whose values are all texts."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAVE_AGAIN = "save the file with commas, or with tabs as .tsv"


class CsvRows(InFiles):
    """The records of .csv or .tsv files. They stay on disk; only the place of each record is in memory.

    The constructor reads every record once and adds problems to `complaints`, notes for people to `notes`.
    """

    def __init__(self, files: Sequence[Path], complaints: Complaints, notes: list[str]) -> None:
        csv.field_size_limit(LONGEST_LINE)
        super().__init__(files)
        self._separators: list[str] = []
        self._headers: list[list[str]] = []
        owners, lines, starts, ends = array("i"), array("q"), array("q"), array("q")
        for owner, file in enumerate(files):
            scan = _Scan(file, complaints, notes)
            for line, start, end in scan.records():
                owners.append(owner)
                lines.append(line)
                starts.append(start)
                ends.append(end)
            self._separators.append(scan.separator)
            self._headers.append(scan.header)
            first = self._headers[0]
            if first and scan.header and set(scan.header) != set(first):
                names = sorted(set(scan.header) ^ set(first))
                found = f"the column {names[0][:60]!r} is only in one of {files[0].name} and this file"
                complaints.add(found, "give all files the same columns", file=str(file), line=1)
        self._owners, self._lines = np.array(owners, np.int32), np.array(lines, np.int64)
        self._starts, self._ends = np.array(starts, np.int64), np.array(ends, np.int64)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        for index in indices:
            owner, start = int(self._owners[index]), int(self._starts[index])
            handle = self._handle(owner)
            handle.seek(start)
            text = handle.read(int(self._ends[index]) - start).decode("utf-8")
            fields = next(_reader(io.StringIO(text, newline=""), self._separators[owner]))
            values = {name: field or None for name, field in zip(self._headers[owner], fields, strict=True)}
            line = int(self._lines[index])
            yield Row(values, self._files[owner], line, line)


class _Lines:
    """The lines of a file as texts, and the place of the next one. Raises BadJsonError for what is not UTF-8."""

    def __init__(self, handle: BinaryIO) -> None:
        mark = handle.read(HEAD)
        self.start = len(mark) - len(without_mark(mark))
        """Position in the file, in bytes."""
        self.number = 1
        handle.seek(self.start)
        self._lines = self._read(handle)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self, handle: BinaryIO) -> Iterator[str]:
        while raw := handle.readline():
            # A carriage return alone may end a line, too.
            for line in io.StringIO(decoded(raw), newline=""):
                self.start += len(line.encode())
                self.number += 1
                yield line


class _Scan:
    """One pass over a file, which finds its separator, its header, and the place of every record."""

    def __init__(self, file: Path, complaints: Complaints, notes: list[str]) -> None:
        self.file, self.complaints, self.notes = file, complaints, notes
        self.separator = "\t" if ending(file) == ".tsv" else ","
        self.header: list[str] = []

    def records(self) -> Iterator[tuple[int, int, int]]:
        """Line, start and end (in bytes) of every record below the header."""
        try:
            with self.file.open("rb", buffering=READ_AHEAD) as handle:
                if found := impostor(handle.read(HEAD)):
                    self._bad(str(found), found.fix)
                    return
                if not self._find_separator(handle):
                    return
                handle.seek(0)
                lines = _Lines(handle)
                try:
                    yield from self._below_header(lines)
                except BadJsonError as error:
                    self._bad(str(error), error.fix, lines.number)
        except OSError as error:
            self._bad(f"the file cannot be read ({error.strerror})", "check its permissions")

    def _find_separator(self, handle: BinaryIO) -> bool:
        """Whether the separator is beyond doubt. A header without the usual one decides by what it has instead."""
        if len(_header(handle, self.separator)) > 1:
            return True
        others = [mark for mark in SEPARATORS if len(_header(handle, mark)) > 1]
        usual = SEPARATORS[self.separator]
        if not others:
            return True  # a single column
        if ending(self.file) == ".csv" and len(others) == 1:
            self.separator = others[0]
            self.notes.append(f"{self.file}: the header has no {usual}, so {SEPARATORS[others[0]]} separate its fields")
            return True
        found = f"the header has no {usual}, but {' and '.join(SEPARATORS[mark] for mark in others)}"
        self._bad(found, "name the file .csv" if others == [","] else SAVE_AGAIN, 1)
        return False

    def _below_header(self, lines: _Lines) -> Iterator[tuple[int, int, int]]:
        reader = _reader(lines, self.separator)
        count, line = 0, 1
        try:
            self.header = _named(next(reader, []))
            if not self.header:
                self._bad("the file is empty", "give a header and rows")
                return
            if twice := sorted({name for name in self.header if self.header.count(name) > 1}):
                self._bad(f"the column {twice[0][:60]!r} appears twice", "rename one", 1)
            while True:
                line, start = lines.number, lines.start
                record = next(reader, None)
                if record is None:
                    break
                if not record:
                    continue
                count += 1
                if len(record) == len(self.header):
                    yield line, start, lines.start
                    continue
                found = f"the record has {len(record)} fields, the header {len(self.header)}"
                fix = f'put texts with {SEPARATORS[self.separator]} or line breaks in "quotes"'
                self.complaints.row(found, fix, file=str(self.file), line=line)
            if not count:
                self._bad("the file has no rows", "give rows, or remove the file")
        except csv.Error as error:
            self._bad(f"invalid CSV: {error}", 'close every quote, write " inside one as ""', line)

    def _bad(self, found: str, fix: str, line: int | None = None) -> None:
        self.complaints.add(found, fix, file=str(self.file), line=line)


def _reader(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    return csv.reader(lines, strict=True, delimiter=separator)


def _header(handle: BinaryIO, separator: str) -> list[str]:
    """The first record if `separator` separates fields; empty if it cannot be read."""
    handle.seek(0)
    try:
        return next(_reader(_Lines(handle), separator), [])
    except (csv.Error, BadJsonError):
        return []


def _named(header: list[str]) -> list[str]:
    """The names of the columns; those without a name (an index that pandas wrote) are numbered as pandas does it."""
    if not any(header):
        return []
    return [name or f"Unnamed: {number}" for number, name in enumerate(header)]
