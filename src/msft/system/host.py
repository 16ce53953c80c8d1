"""What this process may take of its machine: less memory and fewer processors than there are where a control group
limits them, as in a container or a job of SLURM or Kubernetes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GROUPS, OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux shows the control groups, and which of them this process is in."""
MEMORY = {
    2: ("memory.max", "memory.current", ("inactive_file", "active_file")),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}
"""By version: limit, what is used, and, in `memory.stat`, the part of it that Linux gives back: cached files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """In bytes."""

    total: int
    available: int


def host_memory() -> HostMemory:
    import psutil  # not at the top: every command limits its threads, and few ask for memory

    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for folder, version in _groups("memory"):
        limit, current, cached = MEMORY[version]
        most, used = _number(folder / limit), _number(folder / current)
        if most is not None and used is not None:
            used -= sum(_stat(folder).get(name, 0) for name in cached)
            total, available = min(total, most), min(available, max(most - used, 0))
    return HostMemory(total=total, available=available)


def limit_threads() -> None:
    """Lets numerical libraries that are loaded from now on start no more threads than there are processors to run them:
    they count those of the machine, and with more of them waiting than running a step takes many times as long."""
    allowed = min((_processors(folder, version) for folder, version in _groups("cpu")), default=math.inf)
    if allowed < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, math.floor(allowed))))


def _processors(folder: Path, version: int) -> float:
    """How many processors' time a group may take; infinite without a limit."""
    if version == 1:
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    else:
        first, _, second = _text(folder / "cpu.max").partition(" ")
        quota, period = _as_number(first), _as_number(second)
    return quota / period if quota and period and quota > 0 else math.inf


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The groups of a controller that this process is in, and those around them, with their version."""
    for line in _text(OF_PROCESS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = GROUPS / controller if controllers else GROUPS
        # In a container, the path may be that of the machine outside, and the container's own group the mount itself.
        own = mount / path.strip("/")
        yield from ((folder, 1 if controllers else 2) for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _stat(folder: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return {name: int(value) for name, value in pairs}


def _number(file: Path) -> int | None:
    return _as_number(_text(file))


def _as_number(text: str) -> int | None:
    """None for `max`, which is no limit, and for a file that does not exist."""
    return int(text) if text.lstrip("-").isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
