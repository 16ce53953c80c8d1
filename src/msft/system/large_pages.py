"""Large pages for all memory of a process, where Linux gives them on request.

A step of training writes gigabytes of activations, and in pages of 4 KiB the processor spends a tenth of it on looking
up where they are (docs/performance.md). The C library asks for large ones if its environment says so when the process
starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""What Linux gives: `always`, `madvise` (on request) or `never`, the chosen one in brackets."""
NAME, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def use_large_pages() -> None:
    """Starts this process again, with the same arguments and number, if that gives it large pages. To be called before
    it has opened or printed anything."""
    environment = environment_for(os.environ)
    if environment is not None and sys.executable and len(sys.orig_argv) > 1:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def environment_for(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment of a process with large pages; None if this one has what it can have."""
    tunables = environment.get(NAME, "")
    if TUNABLE in tunables or not _on_request() or not _is_glibc():
        return None
    return {**environment, NAME: ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))}


def _on_request() -> bool:
    try:
        return "[madvise]" in SETTING.read_text()
    except OSError:
        return False


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False
