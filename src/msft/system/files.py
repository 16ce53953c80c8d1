"""Every durable file operation of a run goes through here, under a name (design 3.15).

An operation announces itself to `observer` just before it happens, in the thread that does it, and so do the stages of
the loop. Tests set the observer: it kills the process there, makes the operation fail, or records what a power loss may
undo. In production it is None, and nothing but a test can set it: no setting and no environment variable reaches it.

Writes are unbuffered: what was not written when the process died is not written later. An OSError always carries the
path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["stage", "folder", "write", "append", "written", "cut", "sync", "rename", "unlink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is about to happen."""

    name: str
    """Where in the code: `journal.append`, `snapshot.publish`."""
    kind: Kind
    """`written`: a library wrote this file, and nothing has synced it yet; `stage`: no operation, a place in the loop;
    `sync` of a folder makes its entries durable."""
    path: Path
    to: Path | None = None
    """Of a rename."""
    data: bytes = b""
    """Of a write or an append."""
    size: int = 0
    """Of a cut: the bytes that stay."""


observer: Callable[[Operation], None] | None = None


def stage(name: str) -> None:
    """A place between two stages of the loop."""
    if observer is not None:
        observer(Operation(name=name, kind="stage", path=Path()))


def _announce(name: str, kind: Kind, path: Path, to: Path | None = None, data: bytes = b"", size: int = 0) -> None:
    if observer is not None:
        observer(Operation(name=name, kind=kind, path=path, to=to, data=data, size=size))


def make_folder(name: str, folder: Path, mode: int = 0o777) -> None:
    """Makes a folder and its missing parents, each durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(name, folder.parent)
    with _naming(folder):
        _announce(name, "folder", folder)
        folder.mkdir(mode=mode, exist_ok=True)
    sync(name, folder.parent)


def make_draft(name: str, folder: Path) -> None:
    """Makes a folder that need not last."""
    with _naming(folder):
        _announce(name, "folder", folder)
        folder.mkdir()


def write(name: str, file: Path, data: bytes) -> None:
    """The file's content, not yet durable."""
    with _naming(file), file.open("wb", buffering=0) as out:
        _announce(name, "write", file, data=data)
        _write_all(out.fileno(), data)


def write_blocks(name: str, file: Path, blocks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """The file's content, block after block, not yet durable; its size, and the SHA-256 of what was handed over."""
    sha256 = hashlib.sha256()
    kind: Kind = "write"
    size, direct = 0, _Direct()
    with _naming(file), file.open("wb", buffering=0) as out:
        for block in blocks:
            if observer is not None:
                _announce(name, kind, file, data=bytes(block))
            sha256.update(block)
            direct.write(out.fileno(), block)
            size += len(block)
            kind = "append"
        direct.finish(out.fileno())
        return size, sha256.hexdigest()


class _Direct:
    """Writes past the page cache where the file system can: copying gigabytes into it takes a core that trains.

    That takes whole pages from an aligned buffer; what does not fill one at the end goes the usual way.
    """

    SIZE = 16 << 20

    def __init__(self) -> None:
        self._buffer: mmap.mmap | None = None
        self._held = 0

    def write(self, descriptor: int, block: bytes | memoryview) -> None:
        self._buffer = mmap.mmap(-1, self.SIZE) if self._buffer is None else self._buffer
        rest = memoryview(block)
        while len(rest):
            part = rest[: self.SIZE - self._held]
            self._buffer[self._held : self._held + len(part)] = part
            self._held += len(part)
            rest = rest[len(part) :]
            if self._held == self.SIZE:
                self._past_the_cache(descriptor, True)
                _write_all(descriptor, memoryview(self._buffer))
                self._held = 0

    def finish(self, descriptor: int) -> None:
        """Writes what is left."""
        if self._buffer is not None:
            self._past_the_cache(descriptor, False)
            _write_all(descriptor, memoryview(self._buffer)[: self._held])

    @staticmethod
    def _past_the_cache(descriptor: int, wanted: bool) -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        flag = getattr(os, "O_DIRECT", 0)
        with contextlib.suppress(OSError):  # a file system without it, such as one in memory, says so here
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | flag if wanted else flags & ~flag)


def written(name: str, file: Path) -> None:
    """Tells the observer of a file that a library wrote."""
    with _naming(file):
        _announce(name, "written", file)


def append(name: str, file: Path, data: bytes, *, durable: bool = True) -> None:
    """Adds bytes at a file's end and makes them durable; a failure takes them back as far as it can."""
    with _naming(file), file.open("ab", buffering=0) as out:
        size = os.fstat(out.fileno()).st_size
        try:
            _announce(name, "append", file, data=data)
            _write_all(out.fileno(), data)
            if durable:
                _announce(name, "sync", file)
                os.fsync(out.fileno())
        except OSError:
            os.truncate(out.fileno(), size)
            raise


def replace(name: str, file: Path, data: bytes, *, place: bool = True) -> None:
    """The whole content or nothing: a temporary file, synced, renamed into place, the folder synced.

    `place=False`: where the folder is synced by what follows anyway.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        write(name, temporary, data)
        sync(f"{name}.content", temporary)
        rename(name, temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if place:
        sync(f"{name}.entry", file.parent)


def cut(name: str, file: Path, size: int) -> None:
    """Shortens a file; durable once it is synced."""
    with _naming(file):
        _announce(name, "cut", file, size=size)
        os.truncate(file, size)


def sync(name: str, path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable."""
    with _naming(path):
        _announce(name, "sync", path)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename(name: str, path: Path, to: Path) -> None:
    """Moves a file or a folder; durable once the folder that holds it is synced."""
    with _naming(path):
        _announce(name, "rename", path, to=to)
        path.replace(to)


def remove(name: str, path: Path) -> None:
    """Deletes a file or a whole folder, where it is there."""
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.iterdir()):
            remove(name, inner)
    elif not path.exists() and not path.is_symlink():
        return
    with _naming(path):
        _announce(name, "unlink", path)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """The kernel does not say which file is meant when a descriptor fails; people must know."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
