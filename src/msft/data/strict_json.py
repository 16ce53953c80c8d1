"""Strict JSON: no NaN, no duplicate keys, no lone surrogates. Also detects files that are of another type."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any

from msft.config.problems import shown
from msft.core.plain_words import kind_of

OBJECT_A_LINE = "give one JSON object a line"


class BadJsonError(ValueError):
    """What was found, without the content itself; `fix` says how to fix it."""

    def __init__(self, found: str, fix: str = OBJECT_A_LINE, at: int = 0) -> None:
        super().__init__(found)
        self.fix = fix
        self.at = at
        """Position in the text at which the value begins."""


_IMPOSTORS = (  # how the file begins, what it is, what to do
    (re.compile(rb"\s*<(!doctype|html|\?xml)", re.I), "an HTML or XML page", "download the data itself, not its page"),
    (re.compile(rb"version https://git-lfs"), "a Git-LFS pointer, not the data", "fetch the file with git lfs pull"),
    (re.compile(rb"\x1f\x8b"), "compressed with gzip", "unpack it first"),
    (re.compile(rb"\x28\xb5\x2f\xfd|BZh|\xfd7zXZ|PK\x03\x04"), "a compressed archive", "unpack it first"),
    (re.compile(rb"PAR1"), "a Parquet file", "give it the ending .parquet"),
    (re.compile(rb"\xff\xfe|\xfe\xff|[^\x00]\x00[^\x00]\x00|\x00[^\x00]\x00"), "in UTF-16", "save the file as UTF-8"),
)
HEAD = 64
"""Number of bytes from the start of a file that `impostor` needs."""


def impostor(head: bytes) -> BadJsonError | None:
    """The error for a file that begins with `head` and is of a known type other than JSON or CSV, or None."""
    for begins, what, fix in _IMPOSTORS:
        if begins.match(head):
            return BadJsonError(f"the file is {what}", fix)
    return None


def without_mark(raw: bytes) -> bytes:
    """The bytes without a leading byte-order mark."""
    return raw.removeprefix(codecs.BOM_UTF8)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = shown(next(key for key in keys if keys.count(key) > 1))
        raise BadJsonError(f"the key {twice} appears twice", "remove one of the two")
    return values


def _no_constant(name: str) -> Any:
    raise BadJsonError(f"{name} is not a JSON value", "give a number, or null")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadJsonError(f"the number {shown(text)} is too large", "give a number that a double can hold")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
_BLANK = re.compile(r"[ \t\r\n]*")


def decoded(raw: bytes) -> str:
    """The bytes as text. Raises BadJsonError for what is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJsonError(f"byte {error.start + 1} is not valid UTF-8", "save the file as UTF-8") from None


def json_value(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value at `start` or after the blanks there, and the position of its end. Raises BadJsonError."""
    start = blank(text, start)
    try:
        return _DECODER.raw_decode(text, start)
    except BadJsonError:
        raise
    except json.JSONDecodeError as error:
        if text.find("\0", start) >= 0:
            raise BadJsonError("there is a NUL byte in the text", "write \\u0000, or leave it out") from None
        raise BadJsonError(f"invalid JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from None
    except RecursionError:
        raise BadJsonError("invalid JSON: lists or objects are nested too deeply") from None
    except ValueError:  # the interpreter refuses numbers of thousands of digits
        raise BadJsonError("invalid JSON: a number has too many digits") from None


def blank(text: str, start: int) -> int:
    """The position after any blanks at `start`."""
    match = _BLANK.match(text, start)
    return match.end() if match else start


def checked_object(values: Any, source: str) -> dict[str, Any]:
    """The value, if it is an object without lone surrogates; `source`: its text. Raises BadJsonError."""
    if not isinstance(values, dict):
        what = "null" if values is None else kind_of(values)
        raise BadJsonError(f"found {what}, not an object")
    if "\\ud" in source.lower():  # tokenizers cannot take half a surrogate pair
        try:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            found = "there is a lone surrogate (\\ud800 to \\udfff), which is half a character"
            raise BadJsonError(found, "write both halves, or leave it out") from None
    return values


def json_object(raw: bytes) -> dict[str, Any]:
    """The single object on a line. Raises BadJsonError."""
    text = decoded(raw)
    values, end = json_value(text)
    values = checked_object(values, text)
    if text[end:].strip() == ",":
        raise BadJsonError("there is a comma after the object", "remove it: a line of JSON lines ends with its object")
    if blank(text, end) != len(text):
        raise BadJsonError("there is more than one JSON value on the line")
    return values
