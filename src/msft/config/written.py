"""What a configuration file says with overrides applied, and where: the line of each key, for messages."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msft.config.dataset_defaults import inherit, is_default
from msft.config.problems import Problem, ProblemsError
from msft.config.yaml12 import Document, UnreadableError, parse
from msft.core.errors import ConfigError, complaint
from msft.core.plain_words import kind_of
from msft.core.wire import KeyPath

BY_NAME = ("method", "scorer")
"""Sections of which the name alone may be given."""


@dataclass(frozen=True)
class Location:
    """A line of a file, or an override of the command line."""

    file: str
    line: int | None


@dataclass(frozen=True)
class Written:
    """What a file says with overrides applied, and where each key stands."""

    data: dict[str, Any]
    file: Location
    places: dict[KeyPath, Location]
    inherited: dict[KeyPath, KeyPath]
    """Key of an entry of `datasets` -> key of the defaults from which it has its value."""


def written(path: Path, overrides: Sequence[str]) -> Written:
    """Keys and values, not yet validated. Raises ConfigError where the file or an override cannot be read."""
    document = read(path)
    file = Location(str(path), None)
    places = {key: Location(str(path), line) for key, line in document.lines.items()}
    data = document.data
    inherited: dict[KeyPath, KeyPath] = {}
    try:
        # The defaults come first: an override of an entry changes a part of a value that the entry inherits.
        for override in sorted(overrides, key=is_default, reverse=True):
            if not is_default(override):
                inherited |= inherit(data, places)
            apply(data, places, override)
        inherited |= inherit(data, places)
    except ProblemsError as error:
        raise ConfigError("\n".join(said(problem, places, file) for problem in error.problems)) from None
    return Written(data, file, places, inherited)


def key_of(override: str) -> str:
    """The key that an override `a.b=value` sets."""
    return override.partition("=")[0]


def place_of(key: KeyPath, places: Mapping[KeyPath, Location], file: Location) -> Location:
    """Where a key stands, or else the nearest key around it."""
    return next((places[key[:n]] for n in range(len(key), 0, -1) if key[:n] in places), file)


def said(problem: Problem, places: Mapping[KeyPath, Location], file: Location) -> str:
    place, field = place_of(problem.key, places, file), ".".join(map(str, problem.key))
    return complaint(problem.found, problem.fix, file=place.file, line=place.line, field=field)


def located(message: str, path: Path, overrides: Sequence[str] = ()) -> str:
    """The message, with file and line (or the override) before each of its lines that begins with a field of this
    configuration: ``datasets.gsm8k.test: ...`` becomes ``config.yaml:12 datasets.gsm8k.test: ...``."""
    try:
        found = written(path, overrides)
    except ConfigError:  # the message says so itself
        return message
    ids = {
        str(number): str(entry["id"])
        for number, entry in enumerate(found.data.get("datasets") or ())
        if isinstance(entry, dict) and "id" in entry
    }
    places = {_name(key, ids): place for key, place in found.places.items()}
    return "\n".join(_with_place(line, places) for line in message.splitlines())


def _name(key: KeyPath, ids: Mapping[str, str]) -> str:
    """The key as messages write it: an entry of `datasets` by its id."""
    parts = list(map(str, key))
    if parts[0] == "datasets" and len(parts) > 1:
        parts[1] = ids.get(parts[1], parts[1])
    return ".".join(parts)


def _with_place(line: str, places: Mapping[str, Location]) -> str:
    field, colon, _ = line.partition(": ")
    # The longest name, as an id may contain dots. The field itself may stand nowhere: then it has its default.
    name = max((name for name in places if f"{field}.".startswith((f"{name}.", f"{name} "))), key=len, default=None)
    if not colon or name is None:
        return line
    place = places[name]
    return f"{place.file}{'' if place.line is None else f':{place.line}'} {line}"


def read(path: Path) -> Document:
    """The file as YAML: keys and values. Raises ConfigError."""
    fix = "write model, method, datasets and output (see examples/)"
    if path.is_fifo() or path.is_char_device():  # opening a pipe without a writer would block forever
        what = "a named pipe (FIFO)" if path.is_fifo() else "a device"
        raise ConfigError(complaint(f"the file is {what}", "write the configuration to a file", file=path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(complaint("there is no such file", "check the path", file=path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            found = "the file is a symbolic link that leads back to itself"
            raise ConfigError(complaint(found, "remove the loop", file=path)) from None
        found = f"the file cannot be read ({error.strerror})"
        raise ConfigError(complaint(found, "check the path and its permissions", file=path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(complaint(f"byte {error.start} is not UTF-8", "save the file as UTF-8", file=path)) from None
    try:
        document = parse(text)
    except UnreadableError as error:
        raise ConfigError(complaint(error.found, error.fix, file=path, line=error.line)) from None
    if document.data is None:
        raise ConfigError(complaint("the file is empty", fix, file=path))
    if not isinstance(document.data, dict):
        raise ConfigError(complaint(f"found {kind_of(document.data)}, not keys and values", fix, file=path))
    return document


def apply(data: dict[str, Any], places: dict[KeyPath, Location], override: str) -> None:
    """Set one `a.b=value` in `data`; lists by position, data sets also by id."""
    place = Location(f"--set {override}", None)

    def bad(found: str, fix: str) -> ConfigError:
        return ConfigError(complaint(found, fix, file=place.file))

    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise bad("this is not key=value", "write it as --set training.batch_size=32")
    if dotted != (plain := dotted.strip()):
        raise bad(f"the key {dotted!r} begins or ends with a blank", f"write it without: --set {plain}={text.strip()}")
    try:
        value = parse(text).data
    except UnreadableError as error:
        raise bad(error.found, error.fix) from None
    at: Any = data
    path: KeyPath = ()
    while dotted:
        if isinstance(at, list):
            ids = {str(item["id"]): number for number, item in enumerate(at) if isinstance(item, dict) and "id" in item}
            names = {str(number): number for number in range(len(at))} | ids
            # The longest name first: an id may contain dots.
            head = max((name for name in names if f"{dotted}.".startswith(f"{name}.")), key=len, default=None)
            if head is None:
                raise bad(f"there is no {'.'.join(map(str, (*path, dotted)))}", f"use one of: {', '.join(names)}")
            key: str | int = names[head]
            dotted = dotted[len(head) + 1 :]
        elif isinstance(at, dict):
            key, _, dotted = dotted.partition(".")
            at.setdefault(key, {})
        else:
            raise bad(f"{'.'.join(map(str, path))} is a single value", "set that key itself")
        path = (*path, key)
        before, places[path] = places.get(path, place), place
        if not dotted:
            at[key] = value
        elif at[key] is None:
            at[key] = {}
        elif key in BY_NAME and isinstance(at[key], str):
            at[key], places[*path, "name"] = {"name": at[key]}, before
        at = at[key]
