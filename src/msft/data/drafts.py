"""Cache folders under construction, locked by their writer so that leftovers of dead processes can be recognised.

The kernel releases the lock however a process ends; a process id could not show this, as it may be in use again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = ".draft-"


class Draft:
    """A new folder in `parent`, locked until `close` or the end of the process. Removes the drafts of dead processes.

    Raises OSError if the folder cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        while True:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            held = _locked(self.folder)
            # Between these two lines, another process may have removed the new folder as a leftover.
            if held is not None and os.fstat(held).st_nlink:
                self._held = held
                return
            if held is not None:
                os.close(held)

    def close(self) -> None:
        """Releases the lock. The folder stays."""
        os.close(self._held)


def sweep(parent: Path) -> None:
    """Removes the drafts that no running process has locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        held = _locked(folder, must_lock=True)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _locked(folder: Path, *, must_lock: bool = False) -> int | None:
    """A descriptor of the folder, locked; None if another process has locked the folder or it no longer exists.

    On a file system without locks, the descriptor is not locked, or None with `must_lock`.
    """
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK or must_lock:
            os.close(held)
            return None
    return held
