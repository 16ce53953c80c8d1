"""Folders that are written completely or not at all, and verified before they are read. No torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from msft.core.errors import RunError, complaint
from msft.record.journal import canonical
from msft.record.journal import digest as digest_of_text
from msft.system import files

MANIFEST = "MANIFEST.json"
Contents: TypeAlias = Mapping[str, tuple[int, str]]
"""Size in bytes and SHA-256 of files, by their names in the folder."""
_UNFINISHED = ".unfinished"
_MEND = "continue with --resume: its content is made again"


def publish(
    name: str,
    folder: Path,
    fill: Callable[[Path], Contents | None],
    about: Mapping[str, Any] | None = None,
    *,
    place: bool = True,
    home: Path | None = None,
) -> None:
    """Creates `folder` with what `fill` writes into it: durable, and with a manifest of sizes and SHA-256.

    `name`: of these file operations. `fill` may return size and SHA-256 of files that it wrote, for the manifest; all
    others are read back. `about`: further JSON fields of the manifest. `place=False`: the parent is not synced, because
    a later operation does so. `home`: see `files.make_folder`. A crash at any moment leaves either no `folder` or a
    complete one (and leftovers that `sweep` removes); a failure leaves everything as it was.
    """
    files.make_folder(f"{name}.parent", folder.parent, home=home)
    draft = folder.with_name(folder.name + _UNFINISHED)
    files.remove(f"{name}.leftover", draft)
    try:
        files.make_draft(f"{name}.draft", draft)
        known = {draft / file: _identity(*content) for file, content in (fill(draft) or {}).items()}
        inner = sorted({*known, *(path for path in draft.rglob("*") if path.is_file())})
        for path in inner:
            if path not in known:
                files.written(f"{name}.fill", path)
        identities = {_name(draft, path): known.get(path) or _read_identity(path) for path in inner}
        manifest = {"version": 1, "files": identities, **(about or {})}
        manifest["sha256"] = digest_of_text(canonical(manifest))
        files.write(
            f"{name}.manifest", draft / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
        )
        for path in [*inner, draft / MANIFEST]:
            files.sync(f"{name}.content", path)
        for path in [*(path for path in draft.rglob("*") if path.is_dir()), draft]:
            files.sync(f"{name}.entries", path)
        if folder.exists():
            remove(name, folder)
        files.rename(f"{name}.publish", draft, folder)
    except Exception as error:
        files.remove(f"{name}.failed", draft)  # it takes up space, which may be what is missing
        raise _os_error(error, draft) from error
    if place:
        files.sync(f"{name}.published", folder.parent)


def read_manifest(folder: Path, *, fix: str = _MEND) -> dict[str, Any]:
    """The manifest of a published folder. Raises RunError if it is unreadable or has been changed."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        sha256 = manifest.pop("sha256")
        whole = sha256 == digest_of_text(canonical(manifest))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(complaint("the manifest cannot be read", fix, file=path)) from None
    if not whole:
        raise RunError(complaint("the manifest has changed since it was written", fix, file=path))
    return manifest


def verify(
    folder: Path, *, fix: str = _MEND, free: Collection[str] = (), foreign: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """The manifest. Raises RunError naming the file if anything in a published folder is missing or changed.

    `fix`: what the error says to do; `free`: files that may be missing or changed; `foreign`: whether an additional
    file of this name is an error.
    """
    manifest = read_manifest(folder, fix=fix)
    expected = manifest["files"]
    found = {_name(folder, path): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    for name in sorted(found.keys() - expected.keys() - {MANIFEST}):
        if foreign(name):
            raise RunError(complaint("the file is not in the manifest", fix, file=found[name]))
    for name, entry in expected.items():
        if name in free:
            continue
        path = folder / name
        if not path.is_file():
            raise RunError(complaint("the file is missing", fix, file=path))
        try:
            found_now = _read_identity(path)
        except OSError as error:
            raise RunError(complaint(f"the file cannot be read ({error.strerror})", fix, file=path)) from None
        if found_now != entry:
            raise RunError(complaint("the content differs from the manifest", fix, file=path))
    return manifest


def remove(name: str, folder: Path) -> None:
    """Deletes a published folder; a crash or power loss leaves either all of it or leftovers for `sweep`."""
    doomed = folder.with_name(folder.name + ".doomed" + _UNFINISHED)
    files.remove(f"{name}.leftover", doomed)
    files.rename(f"{name}.doom", folder, doomed)
    files.sync(f"{name}.doomed", folder.parent)
    files.remove(f"{name}.delete", doomed)


def sweep(name: str, parent: Path) -> None:
    """Deletes what a crash left unfinished."""
    for path in sorted(parent.glob(f"*{_UNFINISHED}")):
        files.remove(f"{name}.swept", path)


def _os_error(error: Exception, path: Path) -> Exception:
    """Makes an OSError of a Rust library's error, which has the number only in its text: `... (os error 28)`."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None or isinstance(error, OSError):
        return error
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path))


def _read_identity(path: Path) -> dict[str, Any]:
    return _identity(path.stat().st_size, files.sha256(path))


def _identity(size: int, sha256: str) -> dict[str, Any]:
    return {"bytes": size, "sha256": sha256}


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
