"""Paths as users write them."""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def in_full(path: str | os.PathLike[str]) -> str:
    """The text of a path with `~` or `~user` replaced by the home folder; unchanged if that user does not exist."""
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - the method of Path raises if that user does not exist


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` or `~user` replaced by the home folder, which shells do not do in `--output=~/x`."""
    return Path(in_full(path))


def cache_home() -> Path:
    """The folder of all that msft caches: `$XDG_CACHE_HOME/msft`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "msft"


def absent(folder: Path) -> str:
    """Says that a folder does not exist, with the names beside it that are like its own."""
    try:
        beside = [each.name for each in folder.parent.iterdir() if each.is_dir()]
    except OSError:
        beside = []
    near = difflib.get_close_matches(folder.name, beside, n=2)
    like = f"; like it: {', '.join(str(folder.parent / name) for name in near)}" if near else ""
    return f"there is no folder {folder}{like}"
