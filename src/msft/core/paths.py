"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str) -> Path:
    """With the home folder in place of `~` or `~user`; where there is no such user, as it is written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the method of Path raises where there is no such user
