"""Large files go past the page cache, and hold the same bytes, on whatever file system."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from msft.system import files

WHOLE = 16 << 20


@pytest.mark.parametrize("cuts", [[0], [100, WHOLE], [WHOLE, 2 * WHOLE], [1, 2, WHOLE + 1, 2 * WHOLE + 4_097]])
@pytest.mark.parametrize("past_the_cache", [True, False])
def test_blocks_of_any_size_make_the_file(
    tmp_path: Path, cuts: Sequence[int], past_the_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not past_the_cache:
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    data = os.urandom(2 * WHOLE + 5_000)
    edges = [0, *cuts, len(data)]
    blocks = [memoryview(data)[begin:end] for begin, end in itertools.pairwise(edges)]
    size, sha256 = files.write_blocks("test", tmp_path / "file", blocks)
    assert (tmp_path / "file").read_bytes() == data
    assert (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_no_blocks_make_an_empty_file(tmp_path: Path) -> None:
    assert files.write_blocks("test", tmp_path / "file", [])[0] == 0
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="only Linux writes past the cache")
def test_a_file_system_that_takes_the_flag_and_not_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page of each block is written before it refuses."""
    write, refused = os.write, []

    def picky(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            if len(data) % WHOLE:
                refused.append(len(data))
                raise OSError(errno.EINVAL, "Invalid argument")
            return write(descriptor, data[:4096])
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", picky)
    data = os.urandom(2 * WHOLE + 5)
    size, sha256 = files.write_blocks("test", tmp_path / "file", [data])
    assert (tmp_path / "file").read_bytes() == data
    assert (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())
    if not refused:
        pytest.skip("this file system has no writes past the cache")


def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SMB and FUSE: no error for a folder; a file that cannot be synced is one."""
    (tmp_path / "file").write_text("a")

    def sync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", sync)
    files.sync("test", tmp_path)
    with pytest.raises(OSError, match="file"):
        files.sync("test", tmp_path / "file")
