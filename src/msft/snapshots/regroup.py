"""Makes the snapshots of a run usable by another number of processes than those that wrote them."""

from __future__ import annotations

from pathlib import Path

from msft.snapshots.row_parts import cut, part_folder, whole_snapshots, worlds
from msft.snapshots.store import Store
from msft.system import files


def regroup(store: Store, snapshots: Path, world: int, rank: int) -> None:
    """Writes this process's part of every snapshot that other numbers of processes have left.

    `world`: processes over which the model is split now. The old parts stay, for the other processes, until `forget`.
    """
    for old in sorted(worlds(snapshots) - {world}):
        for number in whole_snapshots(snapshots, old):
            state, said = cut(snapshots, number, old, world, rank)
            store.adopt(number, state, said)


def forget(snapshots: Path, world: int) -> None:
    """Deletes the snapshots of other numbers of processes than `world`."""
    for old in worlds(snapshots) - {world}:
        for rank in range(old):
            folder = part_folder(snapshots, old, rank)
            gone = [folder] if old > 1 else [path for path in folder.iterdir() if path.name.isdecimal()]
            for path in gone:
                if path.is_dir():
                    files.remove("snapshot.regrouped", path)
