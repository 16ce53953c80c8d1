"""The file is the library's, byte for byte, and its digest is of what was handed over."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msft.snapshots import tensor_file
from msft.system import files


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_the_file_is_the_one_that_the_library_writes(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_file, "BLOCK", block)
    tensors = {"weight/ä": torch.randn(3, 5), "step/b": torch.tensor(3.0), "empty": torch.zeros(0, 2)}
    tensors |= {"state1/a": torch.arange(7, dtype=torch.uint8), "absmax1/a": torch.ones(1)}
    size, sha256 = files.write_blocks("test", tmp_path / "ours", tensor_file.blocks(tensors))
    safetensors.torch.save_file(tensors, tmp_path / "theirs")
    content = (tmp_path / "ours").read_bytes()
    assert content == (tmp_path / "theirs").read_bytes()
    assert (size, sha256) == (len(content), hashlib.sha256(content).hexdigest())


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.tuples(
            st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 200),
)
def test_the_library_reads_every_tensor_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[torch.dtype, list[int]]], block: int
) -> None:
    tensors = {name: torch.randn(shape).to(dtype) for name, (dtype, shape) in shapes.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "BLOCK", block)
        parts = [bytes(part) for part in tensor_file.blocks(tensors)]
    back = safetensors.torch.load(b"".join(parts))
    assert back.keys() == tensors.keys()
    assert all(back[name].dtype == tensor.dtype and torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert max(map(len, parts[1:]), default=0) <= block
