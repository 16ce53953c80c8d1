"""Where snapshots are kept: in memory where they fit, on disk otherwise or where they must survive (DESIGN 3.8)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from msft import files
from msft.core.errors import RunError, complaint
from msft.core.vocabulary import ROOT, Snapshot
from msft.data.order import Cursor
from msft.snapshots.publish import publish, read_manifest, remove, sweep, verify
from msft.snapshots.state import State

REHEARSED = 64 << 20
"""Bytes of tensors in the snapshot that is written and read on trial."""
_TENSORS, _FIELDS = "state.safetensors", "state.json"
_NAME = "snapshot"


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
        self.about: Callable[[Snapshot], Mapping[str, Any]] | None = None
        """What the manifest of a snapshot must say of its run: with the journal's position, no two say the same."""
        self.bytes_per_second: float | None = None
        """How fast the last snapshot became durable here; None before the first."""
        self._memory: dict[Snapshot, State] = {}
        if main and folder.is_dir():
            sweep(_NAME, folder)
            files.sync(f"{_NAME}.found", folder)  # what was published may not have been synced before the crash

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
        return sorted(int(path.name) for path in self.folder.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))

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
            remove(_NAME, self._path(number))
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
        self.check(number)
        return _read(self._path(number))

    def check(self, number: Snapshot) -> None:
        """Raises RunError unless a durable snapshot is there, whole, and of this run."""
        path = self._path(number)
        if not path.is_dir():
            raise RunError(complaint("the snapshot is missing", "go on with --resume: it is made again", file=path))
        said = verify(path)
        if self.about is not None and said.get("run") != self.about(number):
            found = "this snapshot is not the one that this run made here"
            raise RunError(complaint(found, "go on with --resume: it is made again", file=path))

    def manifests(self) -> dict[Snapshot, dict[str, Any]]:
        """What the durable snapshots say about themselves, where that can be believed."""
        said = {}
        for number in self.on_disk():
            try:
                said[number] = read_manifest(self._path(number))
            except RunError:
                continue
        return said

    def discard(self, number: Snapshot) -> None:
        """Deletes a snapshot that cannot be used."""
        remove(_NAME, self._path(number))

    def rehearse(self, state: State) -> None:
        """Writes, verifies and loads a snapshot of a part of this state. Raises RunError where it comes back changed.

        Done before a run begins, so that a folder which cannot keep snapshots is known then, and not hours later.
        """
        part: dict[str, torch.Tensor] = {}
        for name, tensor in sorted(state.tensors.items(), key=lambda entry: entry[1].nbytes):
            if not part or tensor.nbytes + sum(t.nbytes for t in part.values()) <= REHEARSED:
                part[name] = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        path = self.folder / "rehearsal"
        self._publish(path, State(tensors=part, cursor=state.cursor), {})
        verify(path)
        back = _read(path).tensors
        if back.keys() != part.keys() or not all(torch.equal(back[name], part[name]) for name in part):
            found = "a snapshot on trial came back with other content"
            raise RunError(complaint(found, "check the disk, or name another output folder", file=path))
        remove(_NAME, path)

    def prune(self, keep: Collection[Snapshot]) -> None:
        """Forgets every snapshot but these."""
        self._memory = {number: state for number, state in self._memory.items() if number in keep}
        for number in self.on_disk() if self.main else []:
            if number not in keep:
                remove(_NAME, self._path(number))

    def _write(self, number: Snapshot, state: State) -> None:
        if self.main:
            self._publish(self._path(number), state, {"run": self.about(number)} if self.about is not None else {})

    def _publish(self, path: Path, state: State, about: Mapping[str, Any]) -> None:
        def fill(draft: Path) -> None:
            safetensors.torch.save_file(dict(state.tensors), draft / _TENSORS)
            fields = {"version": 1, "cursor": state.cursor.as_json()}
            files.write(f"{_NAME}.fill", draft / _FIELDS, json.dumps(fields, sort_keys=True).encode())

        began = time.perf_counter()
        publish(_NAME, path, fill, about)
        self.bytes_per_second = state.nbytes / max(time.perf_counter() - began, 1e-9)

    def _path(self, number: Snapshot) -> Path:
        return self.folder / str(number)


def _read(path: Path) -> State:
    """A verified snapshot."""
    fields = json.loads((path / _FIELDS).read_bytes())
    return State(tensors=safetensors.torch.load_file(path / _TENSORS), cursor=Cursor.from_json(fields["cursor"]))
