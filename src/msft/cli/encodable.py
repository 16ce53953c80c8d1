"""Output on a terminal or pipe that is not UTF-8: plain characters for our own, escapes for those of data and names."""

from __future__ import annotations

import codecs
import io
import sys

from msft.core.errors import complaint

PLAIN = {
    "±": "+/-", "−": "-", "–": "-", "—": "-", "·": ".", "…": "...", "×": "x", "→": "->", "≤": "<=", "≥": ">=",
    "’": "'", "‘": "'", "“": '"', "”": '"',
}  # fmt: skip
NAME = "msft.encodable"


def in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what cannot be encoded as plain characters, or else as an escape like `\\u4e2d`."""
    assert isinstance(error, UnicodeEncodeError), "only for output"
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in found), error.end


def use_plain_characters() -> None:
    """Lets standard output and error escape what they cannot encode; otherwise printing a name could raise."""
    codecs.register_error(NAME, in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NAME)


def said(error: UnicodeEncodeError) -> str:
    """The message for a name of a file or folder that the system's encoding does not have."""
    found = f"{error.object[:100]!a} has characters that cannot be encoded as {error.encoding}"
    fix = "set PYTHONUTF8=1 or a UTF-8 locale, such as LC_ALL=C.UTF-8; names of files must be UTF-8 too"
    return complaint(found, fix)
