"""Which files and folders of a folder are the sub-datasets of `msft init`, and which splits they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from msft.config.problems import shown
from msft.core.errors import ConfigError, complaint
from msft.data.local_files import PACKED, SUFFIXES, ending, is_saved
from msft.data.splits import SPLIT_NAMES

PART = re.compile(rf"[-_.]({'|'.join(SPLIT_NAMES)})$", re.IGNORECASE)
"""The end of a file name that names the split."""
LIKE_DATA = (
    *PACKED,
    *(".7z", ".arrow", ".avro", ".feather", ".ods", ".orc", ".pickle", ".pkl", ".tar", ".tgz", ".txt"),
    *(".xls", ".xlsx", ".xml"),
)
"""Endings of files that may hold rows, and are not read."""


class Place(NamedTuple):
    """Where the rows of a split are."""

    path: Path
    """A file, or a folder that `save_to_disk` wrote."""
    split: str | None = None
    """Its name in the folder."""


def data_in(folder: Path) -> tuple[dict[str, dict[str, Place]], list[Path]]:
    """Id of a sub-dataset -> split -> its place, and the files that may be data but are not read.

    A sub-dataset is task.jsonl, task_train.jsonl and task_test.jsonl, task/train.jsonl, or a folder of `save_to_disk`,
    which `folder` itself may be. Raises ConfigError if two places are one split, or a saved folder has no known one.
    """
    found: dict[str, dict[str, Place]] = {}
    unknown: list[Path] = []
    for path in [folder] if is_saved(folder) else _paths(folder):
        if path.is_file() and ending(path) not in SUFFIXES:
            unknown += [path] if ending(path) in LIKE_DATA else []
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
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not is_hidden and not is_part and (path.is_file() or is_saved(path)):
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
    names = splits_saved(folder)
    if not names:
        return {"train": Place(folder)}  # if it cannot be read, reading it says why
    kinds = {SPLIT_NAMES[name.casefold()]: name for name in reversed(names) if name.casefold() in SPLIT_NAMES}
    if not kinds:
        raise ConfigError(no_training_split(folder))
    return {kind: Place(folder, name) for kind, name in kinds.items()}


def splits_saved(folder: Path) -> list[str]:
    """The names of the splits of a folder of `save_to_disk`; empty if it is a single data set."""
    try:
        return [str(name) for name in json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def no_training_split(folder: Path) -> str:
    """What is said of a folder of `save_to_disk` none of whose splits has a name of training rows."""
    names = splits_saved(folder)
    found = f"no split has a known name of training rows; its splits are {', '.join(map(shown, names))}"
    other = [name for name in names if name.casefold() not in SPLIT_NAMES]
    likely = next((name for name in other if "train" in name.casefold()), other[0] if other else None)
    fix = "add one, or move the folder away"
    if likely is not None:
        fix = f"write the configuration by hand, with `split: {likely}` beside `path`, or rename the split"
    return complaint(found, fix, file=folder)


def _id(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:60] or "data"
