"""The folder that a model is handed over in: new, and written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from msft.core.errors import RunError, complaint, in_a_line
from msft.snapshots.publish import read_manifest
from msft.system import files


def check_output(output: Path) -> None:
    """Raises RunError unless `written_whole` can create the folder: it does not exist, or is empty and can be
    replaced."""
    fix = "name another folder with --output, or remove this one"
    try:
        place = output.resolve()
        taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    except (OSError, RuntimeError) as error:  # the latter of links in a circle
        found = f"the folder cannot be read ({_why(error)})"
        raise RunError(complaint(found, fix, file=output, field="--output")) from error
    if taken:
        raise RunError(complaint("this is not an empty folder", fix, file=output, field="--output"))
    if output.is_dir() and (place.is_mount() or output.samefile(Path.cwd())):
        found = "a mount point, or the working directory, cannot be replaced by the new folder"
        fix = f"name a folder in it: --output {output / 'model'}"
        raise RunError(complaint(found, fix, file=output, field="--output"))


def copied(final: Path, into: Path) -> None:
    """Copies the files of a published folder, as new files with the modes of such, without its manifest and without
    what was added to it since."""
    listed = read_manifest(final)["files"]
    for path in sorted(final.rglob("*")):
        name = path.relative_to(final)
        if name.as_posix() in listed:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into / name)


def written_whole(folder: Path, fill: Callable[[Path], None], *, field: str = "") -> None:
    """Creates `folder` with what `fill` writes; a failure leaves nothing behind. A link is followed. All files have the
    modes that the umask gives to new ones, whatever the library that wrote them chose."""
    folder = folder.resolve()
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        fill(draft)
        allowed = draft.stat().st_mode & 0o777
        for path in (*draft.rglob("*"), draft):
            with suppress(OSError):  # of a file system without modes
                path.chmod(allowed if path.is_dir() else allowed & 0o666)
            if path.is_file():
                files.sync("export", path)
        files.sync("export", draft)
        draft.replace(folder)  # an empty folder may be there
        files.sync("export", folder.parent)
    except (OSError, SafetensorError) as error:
        fix = "check the folder's permissions and the free space on the disk"
        found = f"the model cannot be written ({_why(error)})"
        raise RunError(complaint(found, fix, file=folder, field=field)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _why(error: Exception) -> str:
    """What the system said; safetensors has it in its text."""
    return getattr(error, "strerror", None) or in_a_line(error)
