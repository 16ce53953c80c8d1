"""What a run may take of its machine where a control group limits it; the files are laid out as Linux does."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from msft.system import host
from msft.system.host import HostMemory, host_memory, limit_threads

GIB = 1 << 30
MACHINE = SimpleNamespace(total=64 * GIB, available=50 * GIB)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: MACHINE)
    monkeypatch.setattr(host, "GROUPS", tmp_path)
    monkeypatch.setattr(host, "OF_PROCESS", tmp_path / "own")
    return tmp_path


def group(folder: Path, limit: int | str, used: int, cached: int = 0, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = host.MEMORY[version]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2][0]} {cached}\n{names[2][1]} 0\n")


def test_without_control_groups_it_is_the_machines(groups: Path) -> None:
    assert host_memory() == HostMemory(total=64 * GIB, available=50 * GIB)


def test_a_container_has_what_its_group_leaves(groups: Path) -> None:
    """A path that is the machine's outside: the container's own group is the mount."""
    (groups / "own").write_text("0::/docker/1a2b\n")
    group(groups, 8 * GIB, used=3 * GIB, cached=GIB)
    assert host_memory() == HostMemory(total=8 * GIB, available=6 * GIB)


def test_the_groups_around_it_limit_it_too(groups: Path) -> None:
    """A job of SLURM: the limit stands at the job, and the step below it has none."""
    (groups / "own").write_text("0::/slurm/job_7/step_0\n")
    group(groups / "slurm/job_7/step_0", "max", used=GIB)
    group(groups / "slurm/job_7", 16 * GIB, used=4 * GIB)
    group(groups / "slurm", 128 * GIB, used=60 * GIB)
    assert host_memory() == HostMemory(total=16 * GIB, available=12 * GIB)


def test_the_first_version_of_control_groups(groups: Path) -> None:
    (groups / "own").write_text("5:cpu:/kubepods\n4:memory:/kubepods/pod\n0::/\n")
    group(groups / "memory/kubepods/pod", 10 * GIB, used=12 * GIB, cached=GIB, version=1)
    group(groups / "memory", (1 << 63) - 4096, used=60 * GIB, version=1)
    assert host_memory() == HostMemory(total=10 * GIB, available=0), "more is used than the limit: nothing is free"


@pytest.mark.parametrize(
    ("version", "files", "expected"),
    [
        (2, {"box/cpu.max": "250000 100000", "cpu.max": "max 100000"}, "2"),
        (2, {"box/cpu.max": "50000 100000"}, "1"),
        (2, {"box/cpu.max": "max 100000"}, None),
        (2, {"box/cpu.max": "6400000 100000"}, None),
        (1, {"cpu/box/cpu.cfs_quota_us": "400000", "cpu/box/cpu.cfs_period_us": "100000"}, "4"),
        (1, {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_threads_are_no_more_than_the_processors_of_the_group(
    groups: Path, monkeypatch: pytest.MonkeyPatch, version: int, files: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "environ", {})
    (groups / "own").write_text("0::/box\n" if version == 2 else "3:cpuacct,cpu:/box\n0::/\n")
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == expected
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "7"})
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7", "what the user says holds"
