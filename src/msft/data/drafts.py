"""Folders of the cache in the making, each locked by the process that writes it: so those of the dead are known.

The kernel frees the lock when a process ends, however it ends; a process number may belong to another process by then.
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
    """A new folder in `parent`, locked as long as this lives or until `close`. Sweeps the drafts of dead processes.

    Raises OSError where the folder cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        while True:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            held = _locked(self.folder)
            # Between the two lines another process may have taken the new folder for one of the dead.
            if held is not None and os.fstat(held).st_nlink:
                self._held = held
                return
            if held is not None:
                os.close(held)

    def close(self) -> None:
        """Gives the lock back. The folder stays."""
        os.close(self._held)


def sweep(parent: Path) -> None:
    """Removes the drafts that no living process holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        held = _locked(folder, must_lock=True)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _locked(folder: Path, *, must_lock: bool = False) -> int | None:
    """The folder opened and locked; None where another process holds it or it is gone.

    A file system without locks gives the folder unlocked, or None where `must_lock`.
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
