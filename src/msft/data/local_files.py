"""Finds the files of a `path` in the configuration: a file, a glob or a folder. Refuses all but regular files."""

from __future__ import annotations

import errno
import glob
import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

from msft.config.problems import shown
from msft.core.errors import DataError, complaint
from msft.core.paths import expanded

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
SAME = {".ndjson": ".jsonl"}
"""Another name of an ending -> the ending."""
PACKED = {".gz": "gunzip -k", ".bz2": "bunzip2 -k", ".xz": "unxz -k", ".zst": "unzstd", ".zip": "unzip"}
"""Ending of a compressed file -> the command that unpacks it, and keeps it."""
SHOWN = 5
"""Maximum number of files that a note lists."""
LOOKED_IN = "which is relative to the folder of the configuration or to the working directory"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def local_files(path: str, split: str, field: str, notes: list[str]) -> list[Path] | None:
    """The data files that `path` names, in order and all with the same extension; None if it is a hub id, or a folder
    that only the `datasets` library can read. Raises DataError.

    A file has a single split, `train`; in a folder, file names determine the splits, as on the hub. Files of a folder
    that belong to none of its splits are added to `notes`, once.
    """
    here = expanded(path)
    if _exists(here, field) and here.is_dir():
        files = _in_folder(here, split, field, notes)
        if files is None:
            return None
    elif here.is_file():
        files = [here]
    elif glob.has_magic(path) and (ending(here) in SUFFIXES or "*" in path):
        found = Path(here.anchor).glob(str(here.relative_to(here.anchor)))
        files = sorted(file for file in found if not file.is_dir() and _is_meant(file, here))
        if not files:
            raise _bad(field, f"there is no file that fits {path}", _check_path("pattern", here))
    elif ending(here) in SUFFIXES or path.startswith(("/", "./", "../", "~")):
        raise _bad(field, f"there is no file {path}", _check_path("path", here))
    elif HUB_ID.fullmatch(path):
        return None
    else:
        raise _bad(
            field, f"{shown(path)} is neither a file nor a hub id", "give a file, or a hub id such as owner/name"
        )
    if not here.is_dir() and split != "train":
        fix = "choose rows with where, such as {where: {split: test}}, or name another path"
        raise _bad(field, f"{path} holds a single split, but split: {split} was asked for", fix)
    _check_kinds(path, files, field)
    return files


def ending(file: Path) -> str:
    """The ending by which a file is read: in small letters, one of `SUFFIXES` if it is known."""
    last = file.suffix.casefold()
    return SAME.get(last, last)


def unpack(file: Path) -> str:
    """The command that unpacks a compressed file beside it."""
    return f"{PACKED[ending(file)]} {shlex.quote(str(file))}"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("dataset_info.json", "state.json")
    )


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are the same file, directly or through links."""
    return one.resolve() == other.resolve() or one.samefile(other)


def _exists(path: Path, field: str) -> bool:
    """Whether the path exists. Raises DataError for broken links and for pipes, sockets and devices."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _bad(field, f"{path} is a symbolic link that leads back to itself", "remove the loop") from None
        if error.errno == errno.ENAMETOOLONG:
            raise _bad(field, f"{shown(str(path))} is too long for a file name", "check the path") from None
        if path.is_symlink():
            raise _bad(field, f"{path} is a symbolic link to nothing", "fix the link") from None
        if error.errno == errno.EACCES:
            raise _bad(field, f"{path} cannot be read (permission denied)", "check the permissions") from None
        return False
    if not path.is_file() and not path.is_dir():
        what = "a named pipe (FIFO)" if path.is_fifo() else "a device or socket"
        raise _bad(field, f"{path} is {what}, which can be read only once", "write the rows to a file")
    return True


def _is_meant(file: Path, pattern: Path) -> bool:
    """Whether each hidden part of a path that fits the pattern is one for which the pattern asks with a dot."""
    dotted = [part for part in pattern.parts if part.startswith(".")]
    hidden = [part for part in file.parts if part.startswith(".")]
    return all(any(fnmatchcase(part, asked) for asked in dotted) for part in hidden)


def _in_folder(folder: Path, split: str, field: str, notes: list[str]) -> list[Path] | None:
    """The files of a split by the naming rules of the hub: train.jsonl, data/test-00000-of-00001.parquet, ..."""
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    if any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json", "README.md")):
        return None
    try:
        found = DataFilesDict.from_patterns(get_data_patterns(str(folder)), base_path=str(folder))
    except (EmptyDatasetError, FileNotFoundError):
        found = {}
    splits = {
        str(name): [Path(file) for file in files if ending(Path(file)) in SUFFIXES] for name, files in found.items()
    }
    for file in (Path(file) for name, files in found.items() if str(name) == split for file in files):
        if _is_packed(file) and not file.with_suffix("").exists():
            fix = f"unpack it, or name the files that are meant, such as {folder}/*.jsonl"
            raise _bad(field, f"{file} is compressed, and is not read", fix)
    splits = {name: files for name, files in splits.items() if files}
    if not splits:
        raise _bad(field, f"the folder {folder} has no data files", f"give files that end in {', '.join(SUFFIXES)}")
    if split not in splits:
        raise _bad(field, f"the folder {folder} has no split {split}", f"use one of: {', '.join(sorted(splits))}")
    all_files = DataFilesDict.from_patterns({"all": ["**"]}, base_path=str(folder))["all"]
    others = [Path(file) for file in sorted({*all_files}.difference(*found.values()))]
    if others := [file for file in others if ending(file) in SUFFIXES or _is_packed(file)]:
        note = _of_no_split(folder, others)
        notes += [note] if note not in notes else []
    return sorted(splits[split])


def _of_no_split(folder: Path, files: list[Path]) -> str:
    """The note on files of a folder that are not read."""
    names = ", ".join(str(file.relative_to(folder)) for file in files[:SHOWN])
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    fix = f"name a file of training rows train_{files[0].name} or the like, or move it away"
    return f"{folder}: not read, as their names say no split: {names}{more}. Fix: {fix}"


def _is_packed(file: Path) -> bool:
    return ending(file) in PACKED and ending(file.with_suffix("")) in SUFFIXES


def _check_kinds(path: str, files: list[Path], field: str) -> None:
    for file in files:
        _exists(file, field)
        if _is_packed(file):
            raise _bad(field, f"{file} is compressed, and is not read", f"unpack it: {unpack(file)}")
        if ending(file) not in SUFFIXES:
            raise _bad(field, f"{file} has no known ending", f"use one of: {', '.join([*SUFFIXES, *SAME])}")
    endings = sorted({ending(file) for file in files})
    if len(endings) > 1:
        raise _bad(field, f"{path} has files that end in {' and '.join(endings)}", "give one kind, by a pattern")


def _check_path(what: str, path: Path) -> str:
    return f"check the {what}" + ("" if path.is_absolute() else f", {LOOKED_IN}")


def _bad(field: str, found: str, fix: str) -> DataError:
    return DataError(complaint(found, fix, field=field))
