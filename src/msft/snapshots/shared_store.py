"""Snapshots of a model that is split over processes: each process stores its own rows, and all decide alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from msft.core.errors import RunError
from msft.core.vocabulary import ROOT, Snapshot
from msft.snapshots.row_parts import part_folder
from msft.snapshots.state import State
from msft.snapshots.store import Store, read


class Together(Protocol):
    """The processes over which a model is split."""

    rank: int
    world: int

    def barrier(self) -> None:
        """Waits for all."""

    def of_all(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""

    def from_main(self, value: Any) -> Any:
        """The value of the main process."""


class SharedStore(Store):
    """Stores this process's parts in a folder of its own; a snapshot is there only if every process has its part.

    Every process must call the same methods in the same order. Nothing is gathered: what one process tells the others
    is only what it holds. A part on disk is deleted only when every process has on disk what replaces it, so that a
    crash leaves either the old snapshots or the new ones, whole.
    """

    in_parts = True

    def __init__(
        self,
        folder: Path,
        *,
        together: Together,
        memory_bytes: int,
        gpu_bytes: int = 0,
        home: Path | None = None,
    ) -> None:
        self._together = together
        own = part_folder(folder, together.world, together.rank)
        super().__init__(own, memory_bytes=memory_bytes, gpu_bytes=gpu_bytes, home=home)
        self._drop_incomplete()

    def _drop_incomplete(self) -> None:
        """Deletes what a crash left of snapshots that other processes do not have."""
        common = set.intersection(*self._together.of_all(set(self._durable)))
        if gone := self._durable - common:
            self._delete(gone)
            self._writer.finish()

    def has(self, number: Snapshot) -> bool:
        return number == ROOT or all(self._together.of_all(super().has(number)))

    def on_disk(self) -> list[Snapshot]:
        self.finish()
        return sorted(set.intersection(*self._together.of_all(set(self._published()))))

    def get(self, number: Snapshot) -> State:
        if number in self._memory:
            return self._memory[number]
        self.finish()
        self.check(number)
        return read(self.path(number))

    def check(self, number: Snapshot) -> None:
        """Raises RunError in all processes unless each has its part, complete and of this run."""
        about = self._about(number)
        try:
            self._check(number, about)
            found = None
        except RunError as error:
            found = str(error)
        if errors := [error for error in self._together.of_all(found) if error is not None]:
            raise RunError(errors[0])

    def finish(self) -> None:
        super().finish()
        self._together.barrier()

    def prune(self, keep: Collection[Snapshot], durable: Collection[Snapshot] = ()) -> None:
        if self._durable.difference(keep, durable):
            self.finish()
        super().prune(keep, durable)

    def _fits(self, number: Snapshot, nbytes: int, *, on_gpu: bool) -> bool:
        return all(self._together.of_all(super()._fits(number, nbytes, on_gpu=on_gpu)))

    def _about(self, number: Snapshot) -> Mapping[str, Any] | None:
        said: Mapping[str, Any] | None = self._together.from_main(super()._about(number))
        return said
