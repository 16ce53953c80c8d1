"""Which rows of a tensor each of several processes holds, and snapshots of one number of processes for another."""

from __future__ import annotations


def rows_of(count: int, world: int, rank: int) -> tuple[int, int]:
    """The first row that process `rank` of `world` holds of a tensor of `count` rows, and the one after the last: equal
    parts, the last ones smaller or empty. It is how FSDP2 splits a tensor."""
    each = -(-count // world)
    return min(rank * each, count), min((rank + 1) * each, count)
