"""Folders that appear whole or not at all, and are known to be unchanged before they are read. No torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from msft.core.errors import RunError, complaint
from msft.journal import sync

MANIFEST = "MANIFEST.json"
_UNFINISHED = ".unfinished"
_MEND = "delete the folder {folder}, and resume: what it held is trained again"


def publish(folder: Path, fill: Callable[[Path], None]) -> None:
    """Makes `folder` with what `fill` writes into it, durable and with a manifest of sizes and SHA-256.

    A crash at any moment leaves either no `folder` or a whole one (and leftovers that `sweep` removes).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(folder.name + _UNFINISHED)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    fill(draft)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in sorted(draft.iterdir())}
    (draft / MANIFEST).write_text(json.dumps({"version": 1, "files": files}, indent=1, sort_keys=True), "utf-8")
    for path in draft.iterdir():
        sync(path)
    sync(draft)
    if folder.exists():
        remove(folder)
    draft.rename(folder)
    sync(folder.parent)


def verify(folder: Path) -> None:
    """Raises RunError naming the file if anything in a published folder is missing or changed."""
    mend = _MEND.format(folder=folder)
    manifest = folder / MANIFEST
    try:
        listed = json.loads(manifest.read_text("utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(complaint(f"the manifest cannot be read ({error})", mend, file=manifest)) from error
    unlisted = sorted({path.name for path in folder.iterdir()} - expected.keys() - {MANIFEST})
    if unlisted:
        raise RunError(complaint("the file is not in the manifest", mend, file=folder / unlisted[0]))
    for name, (size, sha256) in expected.items():
        path = folder / name
        if not path.is_file():
            raise RunError(complaint("the file is missing", mend, file=path))
        if path.stat().st_size != size:
            raise RunError(complaint(f"the file has {path.stat().st_size} bytes, not {size}", mend, file=path))
        if digest(path) != sha256:
            raise RunError(complaint("the file's SHA-256 is not the one in its manifest", mend, file=path))


def remove(folder: Path) -> None:
    """Deletes a published folder; a crash leaves either the whole of it or leftovers that `sweep` removes."""
    doomed = folder.with_name(folder.name + ".doomed" + _UNFINISHED)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def sweep(parent: Path) -> None:
    """Deletes what a crash left unfinished."""
    for path in parent.glob(f"*{_UNFINISHED}"):
        shutil.rmtree(path)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
