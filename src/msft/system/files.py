"""The durable file operations of a run, each with a name (design 3.15).

Each operation, and each stage of the loop, calls `observer` just before it happens, in the same thread. Tests set the
observer to kill the process there, to make the operation fail, or to record what a power loss may undo. In production
it is None, and only tests can set it: no setting and no environment variable does.

Writes are unbuffered: data that were not written when the process died are not written later. Every OSError has the
path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["stage", "folder", "write", "append", "written", "cut", "sync", "rename", "unlink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation that is about to happen."""

    name: str
    """Name of its place in the code: `journal.append`, `snapshot.publish`."""
    kind: Kind
    """`written`: a library wrote this file, and nothing has synced it yet; `stage`: no operation, a place in the loop;
    `sync` of a folder makes its entries durable."""
    path: Path
    to: Path | None = None
    """The target of a rename."""
    data: bytes = b""
    """The content of a write or an append."""
    size: int = 0
    """The size of the file after a cut, in bytes."""


observer: Callable[[Operation], None] | None = None


def stage(name: str) -> None:
    """Announces a place between two stages of the loop."""
    if observer is not None:
        observer(Operation(name=name, kind="stage", path=Path()))


def _announce(name: str, kind: Kind, path: Path, to: Path | None = None, data: bytes = b"", size: int = 0) -> None:
    if observer is not None:
        observer(Operation(name=name, kind=kind, path=path, to=to, data=data, size=size))


def make_folder(name: str, folder: Path, mode: int = 0o777, *, home: Path | None = None) -> None:
    """Makes a folder and its missing parents, each durable in its own parent.

    `home`: the one of them that is there, and is not made again if someone has removed it (FileNotFoundError).
    """
    if folder.is_dir():
        return
    if folder == home:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    make_folder(name, folder.parent, home=home)
    with _naming(folder):
        _announce(name, "folder", folder)
        folder.mkdir(mode=mode, exist_ok=True)
    sync(name, folder.parent)


def make_draft(name: str, folder: Path) -> None:
    """Makes a folder that need not be durable."""
    with _naming(folder):
        _announce(name, "folder", folder)
        folder.mkdir()


def write(name: str, file: Path, data: bytes) -> None:
    """Writes the file's content, which is not yet durable."""
    with _naming(file), file.open("wb", buffering=0) as out:
        _announce(name, "write", file, data=data)
        _write_all(out.fileno(), data)


def write_blocks(name: str, file: Path, blocks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Writes the file's content block by block, not yet durable; returns its size and the SHA-256 of the blocks."""
    total = hashlib.sha256()
    kind: Kind = "write"
    size, direct = 0, _Direct()
    with _naming(file), file.open("wb", buffering=0) as out:
        for block in blocks:
            if observer is not None:
                _announce(name, kind, file, data=bytes(block))
            total.update(block)
            direct.write(out.fileno(), block)
            size += len(block)
            kind = "append"
        direct.finish(out.fileno())
        return size, total.hexdigest()


class _Direct:
    """Bypasses the page cache if the file system can: copying gigabytes into it takes a core away from training.

    This requires whole pages from an aligned buffer; the rest at the end is written through the cache.
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
                self._write(descriptor, memoryview(self._buffer))
                self._held = 0

    def finish(self, descriptor: int) -> None:
        """Writes the rest."""
        if self._buffer is not None:
            self._past_the_cache(descriptor, False)
            _write_all(descriptor, memoryview(self._buffer)[: self._held])

    def _write(self, descriptor: int, whole: memoryview) -> None:
        self._past_the_cache(descriptor, True)
        begin = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            _write_all(descriptor, whole)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system that accepts the flag and not the write, or wants other pages after a partial one.
            self._past_the_cache(descriptor, False)
            _write_all(descriptor, whole[os.lseek(descriptor, 0, os.SEEK_CUR) - begin :])

    @staticmethod
    def _past_the_cache(descriptor: int, wanted: bool) -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        flag = getattr(os, "O_DIRECT", 0)
        with contextlib.suppress(OSError):  # a file system without O_DIRECT, such as one in memory
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | flag if wanted else flags & ~flag)


def sha256(file: Path) -> str:
    """SHA-256 of the file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def written(name: str, file: Path) -> None:
    """Announces a file that a library wrote."""
    with _naming(file):
        _announce(name, "written", file)


def append(name: str, file: Path, data: bytes, *, at: int | None = None, durable: bool = True) -> None:
    """Appends bytes to a file and makes them durable; after a failure, removes them again if possible.

    `at`: the size that the file has; without it, it may be new. Raises OSError if it is gone or has another size: what
    is appended would follow from nothing.
    """
    flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT if at is None else 0)
    with _naming(file), os.fdopen(os.open(file, flags, 0o666), "ab", buffering=0) as out:
        size = os.fstat(out.fileno()).st_size
        if at not in (None, size):
            raise OSError(errno.ESTALE, f"it has {size} bytes, where {at} were written", str(file))
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
    """Replaces the content atomically: a temporary file is synced and renamed, then the folder is synced.

    `place=False`: the folder is not synced, because a later operation does it.
    """
    # Two processes may write the same file: a report beside the run that ends.
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        write(name, temporary, data)
        sync(f"{name}.content", temporary)
        rename(name, temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if place:
        sync(f"{name}.entry", file.parent)


def holds_only(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder holds nothing but files of these names, and what an interrupted `replace` of them left."""
    bare = (re.sub(r"^\.(.+?)(\.\d+)?\.tmp$", r"\1", path.name) for path in folder.iterdir())
    return all(name in names for name in bare)


def cut(name: str, file: Path, size: int) -> None:
    """Shortens a file; durable once it is synced."""
    with _naming(file):
        _announce(name, "cut", file, size=size)
        os.truncate(file, size)


def sync(name: str, path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable. Some file systems cannot sync a folder (SMB, FUSE): there
    its entries are as durable as they make them."""
    with _naming(path):
        _announce(name, "sync", path)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP} or not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def rename(name: str, path: Path, to: Path) -> None:
    """Moves a file or a folder; durable once the folder that holds it is synced."""
    with _naming(path):
        _announce(name, "rename", path, to=to)
        path.replace(to)


def remove(name: str, path: Path) -> None:
    """Deletes a file or a whole folder, if it exists."""
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
    """Adds the path to an OSError without one: for a descriptor, the kernel does not name the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
