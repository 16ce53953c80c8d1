"""Which rows of a tensor each of several processes holds, and snapshots of one number of processes cut for another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import Snapshot
from msft.data.order import Cursor
from msft.snapshots.publish import read_manifest, verify
from msft.snapshots.state import State

TENSORS, FIELDS = "state.safetensors", "state.json"
BY_ROWS = ("weight", "mean", "exp_avg", "exp_avg_sq")
"""Kinds of tensors that have a parameter's shape, so that its rows are theirs."""


def rows_of(count: int, world: int, rank: int) -> tuple[int, int]:
    """The first row that process `rank` of `world` holds of a tensor of `count` rows, and the one after the last: equal
    parts, the last ones smaller or empty. It is how FSDP2 splits a tensor."""
    each = -(-count // world)
    return min(rank * each, count), min((rank + 1) * each, count)


def part_folder(snapshots: Path, world: int, rank: int) -> Path:
    """Where a process keeps its parts of snapshots; `world`: processes over which the model is split."""
    return snapshots if world == 1 else snapshots / f"part-{rank + 1}-of-{world}"


def worlds(snapshots: Path) -> set[int]:
    """The numbers of processes of which there are snapshots."""
    if not snapshots.is_dir():
        return set()
    names = [path.name for path in snapshots.iterdir() if path.is_dir()]
    parts = (re.fullmatch(r"part-[0-9]+-of-([0-9]+)", name) for name in names)
    return {int(part[1]) for part in parts if part} | ({1} if any(name.isdecimal() for name in names) else set())


def whole_snapshots(snapshots: Path, world: int) -> list[Snapshot]:
    """The snapshots of which every part is there and undamaged, and all parts are of the same moment of a run."""
    held: list[dict[Snapshot, Any]] = []
    for rank in range(world):
        folder = part_folder(snapshots, world, rank)
        numbers = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []
        held.append({number: said for number in numbers if (said := _said(folder / str(number))) is not None})
    return sorted(n for n in held[0] if all(part.get(n) == held[0][n] for part in held))


def _said(folder: Path) -> Any:
    """What a snapshot's manifest says of its run; None where it is damaged."""
    try:
        return verify(folder).get("run", {})
    except RunError:
        return None


def cut(snapshots: Path, number: Snapshot, old: int, world: int, rank: int) -> tuple[State, Mapping[str, Any]]:
    """What process `rank` of `world` holds of a snapshot in `old` parts, and what its manifest says of its run.

    Only its own rows are read. Raises RunError for tensors that do not follow a parameter's rows.
    """
    folders = [part_folder(snapshots, old, each) / str(number) for each in range(old)]
    with ExitStack() as held:
        parts = [held.enter_context(safe_open(folder / TENSORS, framework="pt")) for folder in folders]
        made = {}
        for name in parts[0].keys():  # noqa: SIM118 (not a dictionary)
            slices = [part.get_slice(name) for part in parts]
            if not slices[0].get_shape():
                made[name] = parts[0].get_tensor(name)
                continue
            if name.partition("/")[0] not in BY_ROWS:
                found = f"{name} cannot be split for another number of processes"
                fix = f"continue with {old} process{'es' if old > 1 else ''}"
                raise RunError(complaint(found, fix, file=folders[0]))
            made[name] = _rows(slices, world, rank)
    said: Mapping[str, Any] = read_manifest(folders[0]).get("run", {})
    return State(tensors=made, cursor=Cursor.from_json(json.loads((folders[0] / FIELDS).read_bytes())["cursor"])), said


def _rows(slices: list[Any], world: int, rank: int) -> Tensor:
    """This process's rows of a tensor whose rows lie in several files, in order."""
    counts = [part.get_shape()[0] for part in slices]
    first, last = rows_of(sum(counts), world, rank)
    found: list[Tensor] = []
    begins = 0
    for part, count in zip(slices, counts, strict=True):
        since, until = max(first, begins), min(last, begins + count)
        if since < until:
            found.append(part[since - begins : until - begins])
        begins += count
    whole: Tensor = torch.cat(found) if found else slices[0][0:0]
    return whole
