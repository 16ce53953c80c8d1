"""The bytes of a safetensors file in blocks, so that each is hashed and written while it is in the cache.

With the library, the digest would need a second reading, and would confirm whatever the disk returns by then. These are
the bytes of the tensors, without a copy of the whole file. The library reads them, and tests compare the file with the
one that the library writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

BLOCK = 16 << 20
"""Bytes per block: few enough to be in the cache when they are written, enough to leave the interpreter's lock to
training."""
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}


def blocks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file of these tensors (contiguous; floating-point numbers or bytes), in blocks of at most BLOCK bytes."""
    # The widest first, so that each begins at a multiple of its width, as the format requires.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    small = bytearray(_header(tensors, order))
    for name in order:
        data = _on_host(tensors[name]).reshape(-1).view(torch.uint8).numpy().data
        if len(small) + len(data) <= BLOCK:
            small += data
            continue
        yield bytes(small)
        small.clear()
        whole = len(data) - len(data) % BLOCK
        for begin in range(0, whole, BLOCK):
            yield data[begin : begin + BLOCK]
        small += data[whole:]
    yield bytes(small)


def _on_host(tensor: Tensor) -> Tensor:
    """The tensor in the memory of the host. From a GPU it is copied beside what the GPU computes, not after it."""
    if not tensor.is_cuda:
        return tensor
    side = _side(tensor.device)
    side.wait_stream(torch.cuda.default_stream(tensor.device))
    with torch.cuda.stream(side):
        return tensor.cpu()


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The stream of all copies. torch hands out 32 streams of each priority in turn: with a priority of its own, this
    one is never the stream on which a step is being recorded, which would make the recording fail."""
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


def _header(tensors: Mapping[str, Tensor], order: list[str]) -> bytes:
    entries, end = {}, 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        entries[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
