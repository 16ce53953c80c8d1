"""Files at addresses such as `s3://bucket/a.jsonl` or `https://...`, which fsspec copies to the cache folder.

A copy is named by its content, so that two processes can make it at once and a file that changed is never mixed up.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from msft.config.problems import shown
from msft.core.errors import DataError, complaint, in_a_line
from msft.core.paths import cache_home
from msft.data.local_files import SUFFIXES, ending
from msft.system.files import sha256

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_address(path: str) -> bool:
    return ADDRESS.match(path) is not None


def fetched(address: str, field: str) -> list[Path]:
    """Local copies of the files at an address, in order; `*` stands for any name, as in a path. Raises DataError."""

    def bad(found: str, fix: str) -> DataError:
        return DataError(complaint(found, fix, field=field))

    from fsspec.implementations.local import LocalFileSystem

    try:
        system, place = _opened(address)
        found = sorted(map(str, system.glob(place))) if "*" in place else [place]
        names = [PurePosixPath(urlsplit(place).path).name for place in found]
        endings = sorted({ending(Path(name)) for name in names})
        if endings and (len(endings) > 1 or endings[0] not in SUFFIXES):
            fix = f"name files of one kind, those of a folder by a pattern such as .../*.jsonl: {', '.join(SUFFIXES)}"
            raise bad(f"{shown(address)} ends in {' and '.join(end or 'no known ending' for end in endings)}", fix)
        if not found or (isinstance(system, LocalFileSystem) and not all(map(system.isfile, found))):
            raise FileNotFoundError(address)
        if isinstance(system, LocalFileSystem):
            return [Path(place) for place in found]
        return [_copied(system, place, name) for place, name in zip(found, names, strict=True)]
    except DataError:
        raise
    except FileNotFoundError as error:
        raise bad(f"there is no file {shown(address)}", "check the address, and that you may read it") from error
    except ImportError as error:
        raise bad(f"{shown(address)} needs a package that is not installed", _package(address)) from error
    except Exception as error:  # every kind of storage raises errors of its own
        found_out = f"{shown(address)} could not be read: {in_a_line(error)}"
        raise bad(found_out, "check the address, and that you may read it") from error


def _opened(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, place = url_to_fs(address)
    return system, str(place)


def _package(address: str) -> str:
    """How to get the package that reads such addresses."""
    from fsspec.registry import known_implementations

    known = known_implementations.get(address.partition("://")[0].lower(), {})
    package = str(known.get("class", "fsspec")).partition(".")[0]
    if package != "fsspec":
        return f"pip install {package}"
    said = str(known.get("err", "install it"))
    named = re.findall(r'"([\w-]+)"', said)
    return f"pip install {' '.join(named)}" if named else said


def _copied(system: Any, place: str, name: str) -> Path:
    folder = cache_home() / "files"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / "file"
            system.get_file(place, str(draft))
            copy = folder / sha256(draft)[:16] / name
            copy.parent.mkdir(exist_ok=True)
            draft.replace(copy)
    except PermissionError as error:
        found = f"the cache folder cannot be written ({error.strerror})"
        raise DataError(complaint(found, "make room, or set XDG_CACHE_HOME", file=folder)) from error
    return copy
