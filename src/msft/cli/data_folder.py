"""Which files and folders of a folder are the sub-datasets of `msft init`, and which splits they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from msft.core.errors import ConfigError, complaint
from msft.data.local_files import SUFFIXES, ending, is_saved
from msft.data.splits import SPLIT_NAMES

PART = re.compile(rf"[-_.]({'|'.join(SPLIT_NAMES)})$", re.IGNORECASE)
"""The end of a file name that names the split."""


class Place(NamedTuple):
    """Where the rows of a split are."""

    path: Path
    """A file, or a folder that `save_to_disk` wrote."""
    split: str | None = None
    """Its name in the folder."""


def data_in(folder: Path) -> tuple[dict[str, dict[str, Place]], list[Path]]:
    """Id of a sub-dataset -> split -> its place, and the files whose ending is not known.

    A sub-dataset is task.jsonl, task_train.jsonl and task_test.jsonl, task/train.jsonl, or a folder of `save_to_disk`,
    which `folder` itself may be. Raises ConfigError if two places are one split.
    """
    found: dict[str, dict[str, Place]] = {}
    unknown: list[Path] = []
    for path in [folder] if is_saved(folder) else _paths(folder):
        if path.is_file() and ending(path) not in SUFFIXES:
            unknown.append(path)
            continue
        name, places = _in_file(path) if path.is_file() else (path.resolve().name, _saved(path))
        known = found.setdefault(_id(name), {})
        for kind, place in places.items():
            if kind in known:
                clash = f"{known[kind].path.name} and {path} would both be the {kind} split of {_id(name)}"
                raise ConfigError(complaint(clash, "rename or move one of them", file=folder))
            known[kind] = place
    return found, unknown


def _paths(folder: Path) -> Iterator[Path]:
    """The files of the folder and of the folders in it, and those of these folders that `save_to_disk` wrote."""
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        is_part = path.parent != folder and is_saved(path.parent)
        if not path.name.startswith(".") and not is_part and (path.is_file() or is_saved(path)):
            yield path


def _in_file(path: Path) -> tuple[str, Mapping[str, Place]]:
    """The name of the sub-dataset, and the split that the file holds."""
    if path.stem.casefold() in SPLIT_NAMES:
        name, part = path.resolve().parent.name, path.stem
    elif last := PART.search(path.stem):
        name, part = path.stem[: last.start()], last[1]
    else:
        name, part = path.stem, "train"
    return name, {SPLIT_NAMES[part.casefold()]: Place(path)}


def _saved(folder: Path) -> Mapping[str, Place]:
    """The splits of a folder of `save_to_disk`, the first of each kind."""
    index = folder / "dataset_dict.json"
    if not index.is_file():
        return {"train": Place(folder)}
    try:
        names = [str(name) for name in json.loads(index.read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {"train": Place(folder)}  # reading it says what is wrong
    kinds = {SPLIT_NAMES[name.casefold()]: name for name in reversed(names) if name.casefold() in SPLIT_NAMES}
    return {kind: Place(folder, name) for kind, name in kinds.items()}


def _id(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:60] or "data"
