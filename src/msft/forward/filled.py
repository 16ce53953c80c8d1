"""Micro-batches filled up to a fixed size (`forward/shapes.py`), in arrays that stay where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msft.forward.batches import Lengths, MicroBatch, no_mask
from msft.forward.shapes import Shape
from msft.forward.token_rows import Row


class Filled:
    """The arrays of one size on the device, and the micro-batch that they are."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape = shape
        self._bytes = torch.zeros(_size(shape), dtype=torch.uint8, device=device)
        ids, positions, read, targets, ends, weights = (
            self._bytes[start:stop].view(dtype) for start, stop, dtype in _parts(shape)
        )
        self.weights: Tensor = weights
        """[targets] what the loss of each target is multiplied by; 0 for what fills up."""
        self.batch = MicroBatch(
            ids=ids[None],
            positions=positions[None],
            mask=no_mask(device),
            lengths=Lengths(ends, shape.longest),
            read=read,
            rows=torch.arange(shape.targets // shape.width, device=device).repeat_interleave(shape.width),
            targets=targets,
            counts=(),
        )
        self.take(arrays([], shape, np.zeros(0)))

    def take(self, values: NDArray[np.uint8]) -> None:
        """Copies the values of a micro-batch (`arrays`) to the device, without waiting for it."""
        host = torch.from_numpy(values)
        if self._bytes.is_cuda:
            host = host.pin_memory()
        self._bytes.copy_(host, non_blocking=True)


def arrays(rows: Sequence[Row], shape: Shape, weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The values of a micro-batch of these rows, one sequence each; `weights`: [targets of the rows].

    What fills up are rows of token 0 that are no longer than `shape.longest`: attention would leave the outputs of a
    longer row unwritten, and the NaN that may stand there would reach gradients even with a weight of 0.
    """
    found = np.zeros(_size(shape), np.uint8)
    ids, positions, read, targets, ends, weight = (
        found[start:stop].view(_NUMPY[dtype]) for start, stop, dtype in _parts(shape)
    )
    token = target = 0
    for number, one in enumerate(rows):
        stop, more = token + len(one), target + len(one.targets)
        ids[token:stop], positions[token:stop] = one.ids, one.positions
        read[target // shape.width : more // shape.width] = one.before[:: shape.width] + token
        targets[target:more] = one.targets
        token, target, ends[number + 1] = stop, more, stop
    weight[:target] = weights
    filling = np.arange(shape.tokens - token)
    positions[token:] = filling % shape.longest
    rest = ends[len(rows) + 1 :]
    rest[:] = np.minimum(token + shape.longest * (1 + np.arange(len(rest))), shape.tokens)
    assert ends[-1] == shape.tokens, "the size does not hold these rows"
    return found


_NUMPY = {torch.int64: np.int64, torch.int32: np.int32, torch.float32: np.float32}


def _parts(shape: Shape) -> list[tuple[int, int, torch.dtype]]:
    """Begin and end, in bytes, and type of ids, positions, read, targets, ends and weights; the widest types first."""
    counts = [
        (shape.tokens, torch.int64), (shape.tokens, torch.int64), (shape.targets // shape.width, torch.int64),
        (shape.targets, torch.int64), (shape.rows + 1, torch.int32), (shape.targets, torch.float32),
    ]  # fmt: skip
    stops = np.cumsum([count * dtype.itemsize for count, dtype in counts]).tolist()
    return [(start, stop, dtype) for start, stop, (_, dtype) in zip([0, *stops[:-1]], stops, counts, strict=True)]


def _size(shape: Shape) -> int:
    return _parts(shape)[-1][1]
