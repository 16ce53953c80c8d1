"""What a disk may hold after a power loss, from the operations that were recorded.

A file's bytes are certain once it is synced, a folder's entries once the folder is. Before, a file may hold any prefix
of what was written to it, the last write torn or with blocks of zeros, and of a folder's changes any subset may have
happened; a rename happens or does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from msft.system.files import Operation

BLOCK = 512


@dataclass
class Bytes:
    """A file: what is certain, and what was done since."""

    certain: bytes = b""
    pending: list[Callable[[bytes], bytes]] = field(default_factory=list)
    torn: list[Callable[[random.Random, bytes], bytes]] = field(default_factory=list)
    """For each pending change, what it leaves where it is torn."""

    def now(self) -> bytes:
        content = self.certain
        for change in self.pending:
            content = change(content)
        return content

    def after(self, draw: random.Random, mode: str) -> bytes:
        if mode == "all":
            return self.now()
        content = self.certain
        if mode == "none":
            return content
        many = draw.randint(0, len(self.pending))
        for change in self.pending[:many]:
            content = change(content)
        if many < len(self.pending) and draw.random() < 0.6:
            content = self.torn[many](draw, content)
        return content

    def write(self, data: bytes) -> None:
        self._do(lambda old: data, lambda draw, old: _torn(draw, b"", data))

    def append(self, data: bytes) -> None:
        self._do(lambda old: old + data, lambda draw, old: old + _torn(draw, b"", data))

    def cut(self, size: int) -> None:
        self._do(lambda old: old[:size], lambda draw, old: old)

    def _do(self, change: Callable[[bytes], bytes], torn: Callable[[random.Random, bytes], bytes]) -> None:
        self.pending.append(change)
        self.torn.append(torn)

    def sync(self) -> None:
        self.certain = self.now()
        self.pending.clear()
        self.torn.clear()


Entries: TypeAlias = "dict[str, Bytes | Folder]"
Tree: TypeAlias = "dict[str, bytes | Tree]"


@dataclass
class Folder:
    certain: Entries = field(default_factory=dict)
    pending: list[Callable[[Entries], None]] = field(default_factory=list)

    def now(self) -> Entries:
        entries = dict(self.certain)
        for change in self.pending:
            change(entries)
        return entries

    def after(self, draw: random.Random, mode: str) -> Tree:
        entries = dict(self.certain)
        for change in self.pending:
            if mode == "all" or (mode == "some" and draw.random() < 0.5):
                change(entries)
        return {name: node.after(draw, mode) for name, node in entries.items()}

    def sync(self) -> None:
        self.certain = self.now()
        self.pending.clear()


class Disk:
    """Everything under `root`, which is there from the beginning."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, Folder()

    def find(self, path: Path) -> Bytes | Folder | None:
        node: Bytes | Folder | None = self.top
        for part in path.relative_to(self.root).parts:
            node = node.now().get(part) if isinstance(node, Folder) else None
        return node

    def folder(self, path: Path) -> Folder:
        node = self.find(path)
        assert isinstance(node, Folder), path
        return node

    def apply(self, operation: Operation) -> None:
        path, kind = operation.path, operation.kind
        if kind == "stage":
            return
        parent = self.folder(path.parent) if path != self.root else self.top
        if kind == "folder":
            made = Folder()
            parent.pending.append(lambda entries: entries.__setitem__(path.name, made))
        elif kind in {"write", "written", "append", "cut"}:
            self._change_file(parent, operation)
        elif kind == "sync":
            node = self.find(path)
            assert node is not None, path
            node.sync()
        elif kind == "rename":
            assert operation.to is not None and operation.to.parent == path.parent
            parent.pending.append(_move(path.name, operation.to.name))
        else:
            parent.pending.append(lambda entries: entries.pop(path.name, None) and None)

    def _change_file(self, parent: Folder, operation: Operation) -> None:
        node = parent.now().get(operation.path.name)
        if node is None:
            node = made = Bytes()
            parent.pending.append(lambda entries: entries.__setitem__(operation.path.name, made))
        assert isinstance(node, Bytes)
        if operation.kind == "append":
            node.append(operation.data)
        elif operation.kind == "cut":
            node.cut(operation.size)
        else:
            node.write(operation.data)

    def after_power_loss(self, draw: random.Random, mode: str) -> Tree:
        """`mode`: `none` of what is not certain has happened, `all` of it, or `some`."""
        return self.top.after(draw, mode)


def recorder(seen: list[Operation]) -> Callable[[Operation], None]:
    """Keeps operations, and the bytes that a library wrote; the bytes that we write ourselves are in them."""

    def record(operation: Operation) -> None:
        wrote = operation.kind == "written"
        seen.append(replace(operation, data=operation.path.read_bytes()) if wrote else operation)

    return record


def power_losses(seen: Sequence[Operation], root: Path, draw: random.Random, each: int) -> Iterator[tuple[int, Tree]]:
    """(operations that had happened, what the disk holds) for a power loss behind every operation."""
    disk = Disk(root)
    for index, operation in enumerate(seen):
        disk.apply(operation)
        if operation.kind == "stage" or operation.name == "somebody":
            continue
        for mode in ("none", "all", *["some"] * (each - 2)):
            yield index + 1, disk.after_power_loss(draw, mode)


def materialise(tree: Tree, at: Path) -> None:
    for name, node in tree.items():
        if isinstance(node, bytes):
            (at / name).write_bytes(node)
        else:
            (at / name).mkdir()
            materialise(node, at / name)


def _move(name: str, to: str) -> Callable[[Entries], None]:
    def move(entries: Entries) -> None:
        if name in entries:
            entries[to] = entries.pop(name)

    return move


def _torn(draw: random.Random, before: bytes, data: bytes) -> bytes:
    if draw.random() < 0.5:
        return before + data[: draw.randrange(len(data) + 1)]
    blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)]
    return before + b"".join(block if draw.random() < 0.5 else bytes(len(block)) for block in blocks)
