"""Standard output that is not UTF-8, closed, or on a full disk: plain characters for our own, escapes for those of data
and names, and one line where nothing can be written."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from pathlib import Path

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
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: >&-
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NAME)


def not_written(error: OSError) -> str | None:
    """The message where standard output cannot be written, which then gets nothing more; None for another error."""
    if error.filename is not None or error.errno not in {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF}:
        return None
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what it holds would fail again at the end
    return complaint(f"the output cannot be written ({error.strerror})", "send it elsewhere", field="standard output")


def said(error: UnicodeEncodeError) -> str:
    """The message for a name of a file or folder that the system's encoding does not have."""
    found = f"{error.object[:100]!a} has characters that cannot be encoded as {error.encoding}"
    fix = "set PYTHONUTF8=1 or a UTF-8 locale, such as LC_ALL=C.UTF-8; names of files must be UTF-8 too"
    return complaint(found, fix)
