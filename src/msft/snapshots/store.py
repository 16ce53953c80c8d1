"""Stores snapshots: in memory where they fit, on disk otherwise or where they must survive a crash (design 3.8).

One thread changes the disk, in the order of the requests, while training continues. So a snapshot is deleted only when
its replacements are durable, and a crash leaves either the old ones or the new.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors.torch
import torch

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import ROOT, Snapshot
from msft.data.order import Cursor
from msft.snapshots.publish import Contents, publish, read_manifest, remove, sweep, verify
from msft.snapshots.row_parts import FIELDS, TENSORS
from msft.snapshots.state import State
from msft.snapshots.tensor_file import blocks
from msft.snapshots.writer import Writer
from msft.system import files

REHEARSED = 64 << 20
"""Bytes of tensors in the snapshot that `rehearse` writes and reads."""
IN_PASSING = 3
"""Snapshots in memory beyond `memory_bytes`: one just copied, one that was dropped while it is being written, and the
beginning of the roll-out while it waits to be written."""
FRESH = 60.0
"""Seconds for which a check is valid, so that a resumed run does not read and hash a snapshot twice."""
_NAME = "snapshot"


@dataclass
class _Queued:
    """A snapshot in the queue for the disk."""

    state: State | None
    """None: it is being written, or was dropped before."""


class Store:
    """The snapshots of one run, by number.

    `folder`: the run's `snapshots/`. `memory_bytes`: how much of this process's memory they may take, apart from those
    IN_PASSING, which include what waits to be written. `gpu_bytes`: how much of its GPU's memory. `main`: whether this
    process writes and deletes on disk; with several processes exactly one does, and the folder is shared. `executor`:
    see `Writer`. `ROOT` is always available and never stored.

    A failed disk operation is raised by the next call, as an OSError. On exit from the context everything is durable;
    if the run is aborted at once (by an exception that is not an `Exception`), only the file in progress is completed.
    """

    in_parts = False
    """Whether other processes hold other parts of the same snapshots."""

    def __init__(
        self,
        folder: Path,
        *,
        memory_bytes: int,
        gpu_bytes: int = 0,
        main: bool = True,
        home: Path | None = None,
        executor: Callable[..., Executor] = ThreadPoolExecutor,
    ) -> None:
        self.folder = folder
        self.memory_bytes = memory_bytes
        self.gpu_bytes = gpu_bytes
        self.main = main
        self.home = home
        """The folder of the run, which is not made again if someone has moved or removed it."""
        self.about: Callable[[Snapshot], Mapping[str, Any]] | None = None
        """What the manifest of a snapshot says of its run; unique, as it includes the journal's position."""
        self.bytes_per_second: float | None = None
        """Speed at which the last snapshot was written; None before the first."""
        self._memory: dict[Snapshot, State] = {}
        self._writer = Writer(executor)
        self._queue: dict[Snapshot, _Queued] = {}
        self._checked: dict[Snapshot, float] = {}
        if main and folder.is_dir():
            sweep(_NAME, folder)
            files.sync(f"{_NAME}.found", folder)  # what was published may not have been synced before the crash
        self._durable = set(self._published()) if main else set[Snapshot]()
        """The snapshots on disk once all queued operations are done."""

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._writer.stop()
        self._writer.close()
        if kind is None or issubclass(kind, Exception):
            self._writer.check()

    def on_disk(self) -> list[Snapshot]:
        """The durable snapshots, in order, after waiting for queued operations."""
        self.finish()
        return self._published()

    @property
    def durable(self) -> frozenset[Snapshot]:
        """Those that are on disk, or queued for it."""
        return frozenset(self._durable)

    def has(self, number: Snapshot) -> bool:
        if number == ROOT or number in self._memory:
            return True
        return number in self._durable if self.main else self.path(number).is_dir()

    def put(self, number: Snapshot, state: State, durable: bool) -> int:
        """Stores a snapshot and returns its size in bytes, the same in memory and on disk.

        `durable`: also on disk, once `finish` has returned. A snapshot that does not fit in memory is on disk on
        return.
        """
        assert number != ROOT, "the base model is never kept"
        self._writer.check()
        fits = self._fits(number, state.taken, on_gpu=state.on_gpu)
        self._memory.pop(number, None)
        if fits:
            self._memory[number] = state
        if durable or not fits:
            self._write(number, state)
            if not fits:
                self._writer.finish()
        elif number in self._durable:
            self._delete([number])
        return state.nbytes

    def has_room_on_gpu(self, number: Snapshot, nbytes: int) -> bool:
        """Whether a snapshot of this size may stay in the GPU's memory."""
        return self._fits(number, nbytes, on_gpu=True)

    def _fits(self, number: Snapshot, nbytes: int, *, on_gpu: bool) -> bool:
        held = sum(k.taken for other, k in self._memory.items() if other != number and k.on_gpu == on_gpu)
        return held + nbytes <= (self.gpu_bytes if on_gpu else self.memory_bytes)

    def persist(self, numbers: Collection[Snapshot]) -> None:
        """Queues the writing of those that are not on disk; waits only for operations queued earlier."""
        self.finish()
        for number in sorted(numbers):
            if number in self._memory and number not in self._durable:
                self._write(number, self._memory[number])

    def finish(self) -> None:
        """Waits until all queued disk operations are done."""
        self._writer.finish()

    def get(self, number: Snapshot) -> State:
        """The snapshot, which must be copied from and not changed. Raises RunError if it is missing or damaged."""
        if number in self._memory:
            return self._memory[number]
        self.finish()
        if time.monotonic() - self._checked.get(number, -FRESH) >= FRESH:
            self.check(number)
        del self._checked[number]
        return read(self.path(number))

    def check(self, number: Snapshot) -> None:
        """Raises RunError unless a durable snapshot exists, is complete, and was made by this run."""
        self._check(number, self._about(number))

    def _check(self, number: Snapshot, about: Mapping[str, Any] | None) -> None:
        path = self.path(number)
        if not path.is_dir():
            raise RunError(complaint("the snapshot is missing", "continue with --resume: it is made again", file=path))
        said = verify(path)
        if about is not None and said.get("run") != about:
            found = "this snapshot was not made by this run"
            raise RunError(complaint(found, "continue with --resume: it is made again", file=path))
        self._checked[number] = time.monotonic()

    def manifests(self) -> dict[Snapshot, dict[str, Any]]:
        """The manifests of the durable snapshots, except unreadable ones."""
        said = {}
        for number in self.on_disk():
            try:
                said[number] = read_manifest(self.path(number))
            except RunError:
                continue
        return said

    def discard(self, number: Snapshot) -> None:
        """Deletes a snapshot that cannot be used."""
        self._delete([number])
        self.finish()

    def adopt(self, number: Snapshot, state: State, said: Mapping[str, Any]) -> None:
        """Writes a snapshot that was made from another's parts; `said`: what their manifest says of their run."""
        self._publish(self.path(number), state, {"run": said})
        self._durable.add(number)

    def rehearse(self, state: State) -> None:
        """Writes, verifies and loads a snapshot of a part of this state. Raises RunError if its content has changed.

        Called before a run begins, so that a folder that cannot store snapshots is found then and not hours later.
        """
        part: dict[str, torch.Tensor] = {}
        for name, tensor in sorted(state.tensors.items(), key=lambda entry: entry[1].nbytes):
            if not part or tensor.nbytes + sum(t.nbytes for t in part.values()) <= REHEARSED:
                part[name] = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        path = self.folder / "rehearsal"
        self._publish(path, State(tensors=part, cursor=state.cursor), {})
        verify(path)
        back = read(path).tensors
        if back.keys() != part.keys() or not all(torch.equal(back[name], part[name]) for name in part):
            found = "a test snapshot had other content when it was read back"
            raise RunError(complaint(found, "check the disk, or name another output folder", file=path))
        remove(_NAME, path)

    def prune(self, keep: Collection[Snapshot], durable: Collection[Snapshot] = ()) -> None:
        """Deletes all snapshots but `keep`; those of `durable` that are on disk, or queued for it, stay on disk.

        A queued write of a deleted snapshot is cancelled if it has not begun.
        """
        self._writer.check()
        self._memory = {number: state for number, state in self._memory.items() if number in keep}
        if gone := self._durable.difference(keep, durable):
            self._delete(gone)

    def _write(self, number: Snapshot, state: State) -> None:
        if not self.main:
            return
        about = {} if (said := self._about(number)) is None else {"run": said}
        queued = self._queue[number] = _Queued(state)
        self._checked.pop(number, None)
        self._durable.add(number)
        self._writer.submit(lambda: self._write_queued(number, queued, about))

    def _about(self, number: Snapshot) -> Mapping[str, Any] | None:
        return None if self.about is None else self.about(number)

    def _write_queued(self, number: Snapshot, queued: _Queued, about: Mapping[str, Any]) -> None:
        state, queued.state = queued.state, None
        if state is not None:
            self._publish(self.path(number), state, about)

    def _delete(self, numbers: Collection[Snapshot]) -> None:
        for number in numbers:
            self._checked.pop(number, None)
            if (queued := self._queue.pop(number, None)) is not None:
                queued.state = None
        self._durable.difference_update(numbers)
        self._writer.submit(lambda: self._delete_published(numbers))

    def _delete_published(self, numbers: Collection[Snapshot]) -> None:
        for number in sorted(numbers):
            if self.path(number).is_dir():  # it may not have been written
                remove(_NAME, self.path(number))

    def _publish(self, path: Path, state: State, about: Mapping[str, Any]) -> None:
        def fill(draft: Path) -> Contents:
            fields = json.dumps({"version": 1, "cursor": state.cursor.as_json()}, sort_keys=True).encode()
            contents = {TENSORS: blocks(state.tensors), FIELDS: (fields,)}
            return {file: files.write_blocks(f"{_NAME}.fill", draft / file, data) for file, data in contents.items()}

        began = time.perf_counter()
        publish(_NAME, path, fill, about, home=self.home)
        self.bytes_per_second = state.nbytes / max(time.perf_counter() - began, 1e-9)

    def _published(self) -> list[Snapshot]:
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))

    def path(self, number: Snapshot) -> Path:
        """Where a snapshot is on disk, if it is."""
        return self.folder / str(number)


def read(path: Path) -> State:
    """A verified snapshot."""
    fields = json.loads((path / FIELDS).read_bytes())
    return State(tensors=safetensors.torch.load_file(path / TENSORS), cursor=Cursor.from_json(fields["cursor"]))
