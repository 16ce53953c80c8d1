"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str) -> Path:
    """The path with `~` or `~user` replaced by the home folder; unchanged if that user does not exist."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the method of Path raises if that user does not exist


def cache_home() -> Path:
    """The folder of all that msft caches: `$XDG_CACHE_HOME/msft`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "msft"
