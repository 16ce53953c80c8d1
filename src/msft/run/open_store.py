"""The snapshots of a run on this machine: how much memory they may take, and how processes share them."""

from __future__ import annotations

from collections.abc import Callable

from msft.engine.parallel import Processes
from msft.model.memory import SNAPSHOTS, card_memory
from msft.record.run_folder import RunFolder
from msft.snapshots.publish import sweep
from msft.snapshots.regroup import forget, regroup
from msft.snapshots.row_parts import worlds
from msft.snapshots.shared_store import SharedStore
from msft.snapshots.store import Store
from msft.system.host import host_memory

SNAPSHOT_MEMORY = 0.4
"""Share of the memory free at the start that snapshots may take, those of all processes that share the machine; further
ones are kept on disk only."""


def open_store(
    folder: RunFolder, processes: Processes, make: Callable[..., Store], *, in_parts: bool, jobs: int
) -> Store:
    """The store of a run. `make`: its factory, where each process holds the whole model; `in_parts`: the model is split
    over the processes; `jobs`: runs on this machine at the same time."""
    memory, on_gpu = snapshot_memory(processes, jobs), snapshot_memory_of_gpu(processes)
    place, home = folder.snapshots, folder.path
    if in_parts:
        return SharedStore(place, together=processes, memory_bytes=memory, gpu_bytes=on_gpu, home=home)
    return make(place, memory_bytes=memory, gpu_bytes=on_gpu, main=processes.is_main, home=home)


def take_over(folder: RunFolder, processes: Processes, store: Store) -> None:
    """Makes the snapshots usable that the run has written with the model split over another number of processes."""
    world = processes.world if store.in_parts else 1
    if any(processes.of_all(bool(worlds(folder.snapshots) - {world}))):
        if store.in_parts or processes.is_main:
            regroup(store, folder.snapshots, world, processes.rank if store.in_parts else 0)
        processes.barrier()
        if processes.is_main:
            forget(folder.snapshots, world)
            sweep("snapshot", folder.snapshots)
        processes.barrier()


def snapshot_memory(processes: Processes, jobs: int) -> int:
    """Bytes that snapshots may take in the memory of each process. `jobs`: runs on this machine at the same time.

    Equal in all processes, so that all decide alike what goes to disk: what the machine with the least memory has.
    """
    sharing = processes.on_this_machine * jobs
    return int(min(processes.of_all(SNAPSHOT_MEMORY * host_memory().available / sharing)))


def snapshot_memory_of_gpu(processes: Processes) -> int:
    """Bytes that snapshots may take in the memory of each process's GPU: 0 without one. Equal in all processes."""
    if processes.device.type != "cuda":
        return 0
    return int(min(processes.of_all(SNAPSHOTS * card_memory(processes.device))))
