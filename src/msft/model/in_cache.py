"""Rows a few at a time, so that an operation finds in the processor's cache what the one before it has written.

Norms and gates are several passes over the same arrays, and on a CPU a pass over memory takes longer than its
arithmetic (docs/performance.md).
"""

from __future__ import annotations

from torch import Tensor

PIECE = 1 << 17
"""Numbers of an array at a time: 512 KiB in fp32, so that three of them fit in the cache of a core."""


def pieces(array: Tensor) -> list[slice]:
    """Slices of the rows of an array [rows, width]; at least one row each."""
    rows, width = array.shape
    step = max(1, PIECE // max(width, 1))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
