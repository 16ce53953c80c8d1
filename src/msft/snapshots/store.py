"""Where snapshots are kept: in memory where they fit, on disk otherwise or where they must survive (DESIGN 3.8)."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import safetensors.torch

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import ROOT, Snapshot
from msft.data.order import Cursor
from msft.snapshots.publish import publish, remove, sweep, verify
from msft.snapshots.state import State

_TENSORS, _FIELDS = "state.safetensors", "state.json"


class Store:
    """The snapshots of one run, by number.

    `folder`: the run's `snapshots/`. `memory_bytes`: how much of this process's memory they may take. `main`: whether
    this process writes and deletes on disk; with several processes exactly one does, and the folder is shared.
    `ROOT` is always there and never kept.
    """

    def __init__(self, folder: Path, *, memory_bytes: int, main: bool = True) -> None:
        self.folder = folder
        self.memory_bytes = memory_bytes
        self.main = main
        self._memory: dict[Snapshot, State] = {}
        if main and folder.is_dir():
            sweep(folder)

    @property
    def held_bytes(self) -> int:
        """Bytes of all snapshots held, each counted once, wherever it lies."""
        on_disk = {number: (self._path(number) / _TENSORS).stat().st_size for number in self.on_disk()}
        in_memory = {number: state.nbytes for number, state in self._memory.items()}
        return sum((on_disk | in_memory).values())

    def on_disk(self) -> list[Snapshot]:
        """The durable snapshots, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def has(self, number: Snapshot) -> bool:
        return number == ROOT or number in self._memory or self._path(number).is_dir()

    def put(self, number: Snapshot, state: State, durable: bool) -> int:
        """Keeps a snapshot and returns its size in bytes, the same wherever it lies."""
        assert number != ROOT, "the base model is never kept"
        held = sum(kept.nbytes for other, kept in self._memory.items() if other != number)
        fits = held + state.nbytes <= self.memory_bytes
        self._memory.pop(number, None)
        if fits:
            self._memory[number] = state
        if durable or not fits:
            self._write(number, state)
        elif self.main and self._path(number).is_dir():
            remove(self._path(number))
        return state.nbytes

    def persist(self, numbers: Collection[Snapshot]) -> None:
        """Makes these snapshots survive a crash."""
        for number in sorted(numbers):
            if number in self._memory and not self._path(number).is_dir():
                self._write(number, self._memory[number])

    def get(self, number: Snapshot) -> State:
        """The snapshot, to be copied from, never changed. Raises RunError where it is missing or damaged."""
        if number in self._memory:
            return self._memory[number]
        path = self._path(number)
        if not path.is_dir():
            raise RunError(complaint("the snapshot is missing", "start a new run folder", file=path))
        verify(path)
        fields = json.loads((path / _FIELDS).read_text("utf-8"))
        tensors = safetensors.torch.load_file(path / _TENSORS)
        return State(tensors=tensors, cursor=Cursor.from_json(fields["cursor"]))

    def prune(self, keep: Collection[Snapshot]) -> None:
        """Forgets every snapshot but these."""
        self._memory = {number: state for number, state in self._memory.items() if number in keep}
        for number in self.on_disk() if self.main else []:
            if number not in keep:
                remove(self._path(number))

    def _write(self, number: Snapshot, state: State) -> None:
        def fill(draft: Path) -> None:
            safetensors.torch.save_file(dict(state.tensors), draft / _TENSORS)
            fields = {"version": 1, "cursor": state.cursor.as_json()}
            (draft / _FIELDS).write_text(json.dumps(fields, sort_keys=True), "utf-8")

        if self.main:
            publish(self._path(number), fill)

    def _path(self, number: Snapshot) -> Path:
        return self.folder / str(number)
