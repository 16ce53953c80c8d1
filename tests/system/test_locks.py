"""A run folder is locked while a process writes into it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from msft.core.errors import RunError
from msft.record.run_folder import RunFolder


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = rf"{tmp_path}: its file system has no locks .* Fix: name an output folder"
    with pytest.raises(RunError, match=said), RunFolder(tmp_path).owned():
        raise AssertionError("two processes could write this run")
    assert RunFolder(tmp_path).owner() is None, "reports only read, and go on"
