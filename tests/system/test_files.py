"""Large files go past the page cache, and hold the same bytes."""

from __future__ import annotations

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
