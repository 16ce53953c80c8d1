"""The bytes of a safetensors file in blocks, so that each is hashed and written while it is in the cache.

With the library, the digest would need a second reading, and would confirm whatever the disk returns by then. These are
the bytes of the tensors, without a copy of the whole file. The library reads them, and tests compare the file with the
one that the library writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

BLOCK = 16 << 20
"""Bytes per block: few enough to be in the cache when they are written, enough to leave the interpreter's lock to
training."""
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def blocks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file of these floating-point tensors (contiguous, on the CPU), in blocks of at most BLOCK bytes."""
    # The widest first, so that each begins at a multiple of its width, as the format requires.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    small = bytearray(_header(tensors, order))
    for name in order:
        data = tensors[name].reshape(-1).view(torch.uint8).numpy().data
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
