"""Checks that no weight is NaN or infinite, from the bits in the files. No torch."""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msft.core.errors import ModelError, complaint
from msft.model.folder import ModelSource, safetensors_header, weight_files

_EXPONENT: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""The unsigned type of each dtype's width, and its exponent bits: all of them are set only in infinities and NaNs."""
_BLOCK = 1 << 18
"""Numbers checked at a time: few enough to stay in the processor's cache."""


def check_finite(source: ModelSource) -> None:
    """Raises ModelError if a tensor of a local folder holds a NaN or an infinity. Reads all weights once.

    Not checked: names on the hub, GGUF files, and integer and 8-bit tensors.
    """
    if source.folder is None or source.gguf_file is not None:
        return
    for path in weight_files(source.folder):
        _check_file(path)


def _check_file(path: Path) -> None:
    begin, tensors = safetensors_header(path)
    if not any(entry["dtype"] in _EXPONENT for entry in tensors.values()):
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for name, entry in tensors.items():
            if entry["dtype"] not in _EXPONENT:
                continue
            kind, exponent = _EXPONENT[entry["dtype"]]
            count = math.prod(entry["shape"])
            start, end = entry["data_offsets"]
            if end - start != count * np.dtype(kind).itemsize:
                found = f"{name} has {end - start} bytes, which does not match its shape and dtype"
                raise ModelError(complaint(found, "download or copy the file again", file=path))
            numbers: NDArray[np.unsignedinteger] = np.frombuffer(content, kind, count, begin + start)
            wrong = _any_not_finite(numbers, exponent)
            del numbers  # a mapped file cannot be closed while an array uses it
            if wrong:
                found = f"{name} holds a NaN or an infinity"
                fix = "use a copy of the model from before its training diverged"
                raise ModelError(complaint(found, fix, file=path))


def _any_not_finite(numbers: NDArray[np.unsignedinteger], exponent: int) -> bool:
    blocks = (numbers[at : at + _BLOCK] for at in range(0, len(numbers), _BLOCK))
    return any(int((block & numbers.dtype.type(exponent)).max()) == exponent for block in blocks)
