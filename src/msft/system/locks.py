"""Locks of files, which the kernel releases when the process ends. Not every shared file system has them."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import IO

from msft.core.errors import RunError, complaint

WITHOUT = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
"""What a file system without locks answers: Lustre mounted without `flock`, NFS without its lock service, some in user
space."""


def lock(file: IO[str] | int, path: Path, how: int) -> bool:
    """Locks an open file (`fcntl.LOCK_EX`, or `LOCK_SH`); False if another process holds it, with `LOCK_NB`.

    Raises RunError, naming `path`, on a file system that has no locks: two processes could write one run there.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT:
            raise
        found = "its file system has no locks (flock), without which two processes could write into it at once"
        fix = "name an output folder on another disk, or have this one mounted with locks (Lustre: the option flock)"
        raise RunError(complaint(found, fix, file=path)) from None
    return True
