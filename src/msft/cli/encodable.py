"""Output that cannot be written: plain characters for our own and escapes for those of data and names, where standard
output is not UTF-8; one line where it is closed, a disk is full, or a file may not be written."""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import TextIO

from msft.core.errors import complaint

PLAIN = {
    "±": "+/-", "−": "-", "–": "-", "—": "-", "·": ".", "…": "...", "×": "x", "→": "->", "≤": "<=", "≥": ">=",
    "’": "'", "‘": "'", "“": '"', "”": '"',
}  # fmt: skip
NAME = "msft.encodable"
OF_A_FILE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE,
    errno.ENAMETOOLONG,
}  # fmt: skip
"""What the system says where a file cannot be used: no mistake of this program."""
OF_A_STREAM = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF}
"""What it says where a file without a name cannot be written, standard output for one."""


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
    """The message where a file or standard output cannot be written, which then gets nothing more; None for an error
    that no disk and no permission explains."""
    if error.filename is not None:
        if error.errno not in OF_A_FILE:
            return None
        fix = "check its permissions and the free space, or name another folder"
        return complaint(f"cannot be read or written ({error.strerror})", fix, file=error.filename)
    if error.errno not in OF_A_STREAM:
        return None
    if error.errno == errno.ENOSPC and _is_never_full(sys.stdout):
        fix = "make room on the disks of the output, of the cache and of temporary files"
        return complaint(f"a file cannot be written ({error.strerror})", fix)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what it holds would fail again at the end
    return complaint(f"the output cannot be written ({error.strerror})", "send it elsewhere", field="standard output")


def _is_never_full(stream: TextIO) -> bool:
    """Whether a stream is a terminal or a pipe, which no disk holds."""
    mode = os.fstat(stream.fileno()).st_mode
    return stream.isatty() or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def said(error: UnicodeEncodeError) -> str:
    """The message for a name of a file or folder that the system's encoding does not have."""
    found = f"{error.object[:100]!a} has characters that cannot be encoded as {error.encoding}"
    fix = "set PYTHONUTF8=1 or a UTF-8 locale, such as LC_ALL=C.UTF-8; names of files must be UTF-8 too"
    return complaint(found, fix)
