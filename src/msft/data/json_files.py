"""Readers of .jsonl and .json with line numbers. They collect all problems of a file and show none of its content."""

from __future__ import annotations

import json
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from msft.config.problems import shown
from msft.data.complaints import Complaints
from msft.data.rows import READ_AHEAD, InFiles, Row
from msft.data.strict_json import (
    HEAD,
    OBJECT_A_LINE,
    BadJsonError,
    blank,
    checked_object,
    decoded,
    impostor,
    json_object,
    json_value,
    without_mark,
)

LONGEST_LINE = 16 * 2**20
"""Maximum bytes of a line: no example is longer, but a large file without line breaks is."""
LARGEST_JSON = 512 * 2**20
"""Maximum bytes of a .json file, which must be read as a whole."""
A_ROW = ("messages", "conversations", "prompt", "completion", "chosen", "rejected", "choices", "tools")
"""Keys of rows whose values may be lists or objects."""


class JsonLines(InFiles):
    """The objects of JSON-lines files. They stay on disk; only the offset of each line is in memory, 20 bytes per row.

    The constructor checks every line once and adds problems to `complaints`.
    """

    def __init__(self, files: Sequence[Path], complaints: Complaints) -> None:
        super().__init__(files)
        owners, starts, lines = array("i"), array("q"), array("q")
        for owner, file in enumerate(files):
            for line, start in _checked_lines(file, complaints):
                owners.append(owner)
                starts.append(start)
                lines.append(line)
        self._owners = np.array(owners, np.int32)
        self._starts, self._lines = np.array(starts, np.int64), np.array(lines, np.int64)

    def take(self, indices: Iterable[int]) -> Iterator[Row]:
        for index in indices:
            owner, line = int(self._owners[index]), int(self._lines[index])
            handle = self._handle(owner)
            handle.seek(int(self._starts[index]))
            # The line has been checked, so the plain parser gives the same object, twice as fast.
            yield Row(json.loads(without_mark(handle.readline())), self._files[owner], line, line)


def _checked_lines(file: Path, complaints: Complaints) -> Iterator[tuple[int, int]]:
    """Number and offset of every line that holds an object."""
    try:
        with file.open("rb", buffering=READ_AHEAD) as handle:
            if found := impostor(handle.read(HEAD)):
                complaints.add(str(found), found.fix, file=str(file))
                return
            handle.seek(0)
            if not (yield from _objects(handle, file, complaints)):
                complaints.add("the file is empty", OBJECT_A_LINE, file=str(file))
    except OSError as error:
        complaints.add(f"the file cannot be read ({error.strerror})", "check its permissions", file=str(file))


def _objects(handle: BinaryIO, file: Path, complaints: Complaints) -> Generator[tuple[int, int], None, bool]:
    """As `_checked_lines`; returns whether the file has any content."""
    line = start = 0
    filled = False
    # Lines end with a line feed only: texts may hold other separators.
    while raw := handle.readline(LONGEST_LINE + 1):
        line += 1
        here, start = start, start + len(raw)
        if len(raw) > LONGEST_LINE:
            while not raw.endswith(b"\n") and (raw := handle.readline(READ_AHEAD)):
                start += len(raw)
            found = f"the line has {start - here:,} bytes, more than any example ({LONGEST_LINE:,})"
            complaints.row(found, OBJECT_A_LINE, file=str(file), line=line)
            filled = True
            continue
        content = without_mark(raw) if line == 1 else raw
        if not content.strip():
            continue
        filled = True
        try:
            json_object(content.rstrip(b"\r\n"))
        except BadJsonError as error:
            complaints.row(str(error), error.fix, file=str(file), line=line)
        else:
            yield line, here
    return filled


def json_rows(file: Path, complaints: Complaints) -> list[Row]:
    """The objects of a .json file, which contains an array of them; problems are added to `complaints`."""
    try:
        if file.stat().st_size > LARGEST_JSON:
            found = f"the file has more than {LARGEST_JSON:,} bytes, and an array must be read as a whole"
            complaints.add(found, "write it as .jsonl, one object a line", file=str(file))
            return []
        raw = file.read_bytes()
    except OSError as error:
        complaints.add(f"the file cannot be read ({error.strerror})", "check its permissions", file=str(file))
        return []
    text = ""
    rows: list[Row] = []
    try:
        if other := impostor(raw[:HEAD]):
            raise other
        text = decoded(without_mark(raw))
        for at, values in _elements(text):
            rows.append(Row(values, str(file), text.count("\n", 0, at) + 1, len(rows) + 1))
    except BadJsonError as error:
        complaints.add(str(error), error.fix, file=str(file), line=text.count("\n", 0, error.at) + 1 if text else None)
    return rows


def is_array(file: Path) -> bool:
    """Whether a .json file begins with an array (many contain JSON lines instead); False if it cannot be opened."""
    try:
        with file.open("rb") as handle:
            return without_mark(handle.read(HEAD)).lstrip()[:1] == b"["
    except OSError:
        return False


def check_not_wrapped(file: Path, complaints: Complaints) -> None:
    """Adds a problem for a .json file that is one object around its rows, such as `{"data": [...]}`, or one over
    several lines. A file of JSON lines is none, nor is an object on one line that has the columns of a row."""
    try:
        with file.open("rb") as handle:
            first = without_mark(handle.readline(LONGEST_LINE)).strip()
            more = bool(handle.read(READ_AHEAD).strip())
        if not first.startswith(b"{") or (more and _is_object(first)) or file.stat().st_size > LARGEST_JSON:
            return
        text = decoded(without_mark(file.read_bytes()))
        values, end = json_value(text)
    except (OSError, BadJsonError):
        return  # reading it as JSON lines says what is wrong
    rows, columns = _rows_inside(values), all(map(_is_column, values.values()))
    if blank(text, end) != len(text) or not (more or rows or columns):
        return
    found = "the file is one object, not an array of rows"
    found += f": its rows seem to be under {shown(rows[0])}" if rows else ""
    fix = f"write the array under {shown(rows[0])} to a file of its own" if rows else "give an array of objects"
    complaints.add(found, f"{fix}, or one object a line as .jsonl", file=str(file))


def _rows_inside(values: dict[str, object]) -> list[str]:
    """The keys of an object that seem to hold rows."""
    return [
        key
        for key, value in values.items()
        if isinstance(value, list) and value and isinstance(value[0], dict | list) and key not in A_ROW
    ]


def _is_column(value: object) -> bool:
    """Whether a value could be a whole column, as pandas writes them: a list of values, or an object by row number."""
    return isinstance(value, dict) or (isinstance(value, list) and not isinstance((value or [None])[0], dict))


def _is_object(line: bytes) -> bool:
    try:
        return bool(json_object(line))
    except BadJsonError:
        return False


def _elements(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Position and value of each object of the array in `text`. Raises BadJsonError."""
    at = blank(text, 0) + 1
    if text[at - 1 : at] != "[":
        raise BadJsonError("the file is not an array of objects", "give an array of objects, or .jsonl")
    at = blank(text, at)
    more = text[at : at + 1] != "]"
    while more:
        try:
            values, end = json_value(text, at)
            values = checked_object(values, text[at:end])
        except BadJsonError as error:
            error.at = at
            error.fix = "give an array of JSON objects" if error.fix == OBJECT_A_LINE else error.fix
            raise
        yield at, values
        at = blank(text, end)
        mark = text[at : at + 1]
        if mark not in {",", "]"}:
            raise BadJsonError("invalid JSON: the array has no end, or no comma between two objects", "close it", at)
        more = mark == ","
        if more and text[(last := blank(text, at + 1)) : last + 1] == "]":
            raise BadJsonError("invalid JSON: there is a comma after the last object of the array", "remove it", at)
        at = blank(text, at + 1) if more else at
    if blank(text, at + 1) != len(text):
        raise BadJsonError("there is more text after the array", "give one array")
