"""The only source of randomness in this package: a stream of raw 64-bit numbers for every key."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray


def raw_bits(count: int, *key: str | int) -> NDArray[np.uint64]:
    """[count] raw 64-bit numbers of the Philox stream that belongs to `key`.

    Raw numbers are the same in every NumPy version; NumPy's distributions and shuffles need not be.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    stream: NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return stream
