"""Reads and writes configuration files: line numbers, overrides, and all mistakes in one message (design 4)."""

from __future__ import annotations

import errno
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from msft.config.dataset_defaults import KEY as DATASET_DEFAULTS
from msft.config.dataset_defaults import at_the_defaults, inherit, is_default
from msft.config.method_section import MISSING, Common, later, problem_of
from msft.config.problems import Problem, ProblemsError, unknown_key
from msft.config.schema import Config
from msft.config.yaml12 import Document, UnreadableError, emit, parse
from msft.core.errors import ConfigError, complaint
from msft.core.paths import expanded
from msft.core.wire import KeyPath, kept

MOST = 20
"""Maximum number of problems shown in one message."""


@dataclass(frozen=True)
class _Location:
    file: str
    line: int | None


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `a.b=value` overrides applied.

    Relative paths of models and data sets that exist in the folder of the file, or else in the working directory,
    become absolute; all others are taken as hub ids. Raises ConfigError, naming every problem by file, line and field.
    """
    path = Path(path)
    document = _read(path)
    places = {key: _Location(str(path), line) for key, line in document.lines.items()}
    data = document.data
    file = _Location(str(path), None)
    inherited: dict[KeyPath, KeyPath] = {}
    try:
        # The defaults come first: an override of an entry changes a part of a value that the entry inherits.
        for override in sorted(overrides, key=is_default, reverse=True):
            if not is_default(override):
                inherited |= inherit(data, places)
            _apply(data, places, override)
        inherited |= inherit(data, places)
    except ProblemsError as error:
        raise ConfigError("\n".join(_said(problem, places, file)[1] for problem in error.problems)) from None
    data.pop(DATASET_DEFAULTS, None)
    _absolute_paths(data, path.parent)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_listing(error, data, places, file, inherited)) from None


def output_of(path: Path, overrides: Sequence[str] = ()) -> Path | None:
    """The run folder that a file names, whatever else is wrong with it; None if it names none. Raises ConfigError if
    the file is not YAML."""
    data = _read(path).data
    for override in overrides:
        if key_of(override) == "output":
            _apply(data, {}, override)
    output = data.get("output")
    return expanded(output) if isinstance(output, str) else None


def key_of(override: str) -> str:
    """The key that an override `a.b=value` sets."""
    return override.partition("=")[0]


def from_mapping(data: Mapping[str, Any], source: str) -> Config:
    """The configuration in a mapping. Raises ConfigError, naming `source` and the field of every problem."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_listing(error, data, {}, _Location(source, None))) from None


def dump(config: Config) -> str:
    """The resolved configuration as YAML, from which `load` makes an equal Config."""
    return emit(_plain(config))


def flatten(config: Config) -> dict[str, Any]:
    """Dotted key -> value, with data sets by id, so that two configurations can be compared key by key.

    Keys have the names that journals of version 0.1 use.
    """
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), below)
        else:
            flat[prefix] = value

    plain = _plain(config)
    walk("", plain | {"datasets": {dataset["id"]: dataset for dataset in plain["datasets"]}})
    return kept(without_later_defaults(flat))


def without_later_defaults(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat configuration without the keys marked `LATER` that have their default value."""
    sections = {name: field.annotation for name, field in Config.model_fields.items()} | {"method": Common}
    defaults = {
        f"{name}.{key}": default
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, BaseModel)
        for key, default in later(section).items()
    }
    return {key: value for key, value in flat.items() if key not in defaults or value != defaults[key]}


def _plain(config: Config) -> dict[str, Any]:
    """Mappings, lists and scalars, without unset keys, except in the method section, where null is a value."""
    plain: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return plain | {"method": TypeAdapter(dict[str, Any]).dump_python(config.method.as_dict(), mode="json")}


def _read(path: Path) -> Document:
    mend = "write model, method, datasets and output (see examples/)"
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
        raise ConfigError(complaint(error.found, error.mend, file=path, line=error.line)) from None
    if document.data is None:
        raise ConfigError(complaint("the file is empty", mend, file=path))
    if not isinstance(document.data, dict):
        raise ConfigError(complaint(f"found a {type(document.data).__name__}, not keys and values", mend, file=path))
    return document


def _apply(data: dict[str, Any], places: dict[KeyPath, _Location], override: str) -> None:
    """Set one `a.b=value` in `data`; lists by position, data sets also by id."""
    place = _Location(f"--set {override}", None)

    def bad(found: str, mend: str) -> ConfigError:
        return ConfigError(complaint(found, mend, file=place.file))

    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise bad("this is not key=value", "write it as --set training.batch_size=32")
    try:
        value = parse(text).data
    except UnreadableError as error:
        raise bad(error.found, error.mend) from None
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
        places[path] = place
        if not dotted:
            at[key] = value
        elif at[key] is None:
            at[key] = {}
        at = at[key]


def _absolute_paths(data: dict[str, Any], folder: Path) -> None:
    """Replace relative paths that exist by absolute ones, so that the working directory may change."""
    model, datasets, output = data.get("model"), data.get("datasets"), data.get("output")
    if isinstance(output, str) and output.startswith("~"):
        data["output"] = str(expanded(output))
    owners: list[tuple[Any, str]] = [(model, "name_or_path"), (model, "tokenizer"), (model, "chat_template")]
    for dataset in [*(datasets if isinstance(datasets, list) else []), data.get("aggregate")]:
        splits = [dataset.get("validation"), dataset.get("test")] if isinstance(dataset, dict) else []
        owners += [(owner, "path") for owner in (dataset, *splits)]
    for owner, key in owners:
        written = owner.get(key) if isinstance(owner, dict) else None
        if not isinstance(written, str) or not written.strip() or "\n" in written or "\0" in written:
            continue
        for base in (folder, Path()):
            target = base.resolve() / expanded(written)
            if _leads_somewhere(target):
                owner[key] = str(target.resolve())
                break


def _leads_somewhere(path: Path) -> bool:
    try:
        return path.exists() or ("*" in path.name and any(path.parent.glob(path.name)))
    except OSError:  # for example, an inline chat template is too long for a file name
        return False


def _listing(
    error: ValidationError,
    data: Any,
    places: Mapping[KeyPath, _Location],
    file: _Location,
    inherited: Mapping[KeyPath, KeyPath] | None = None,
) -> str:
    """All problems, one per line, in the order of the file."""
    merged: dict[tuple[KeyPath, str], Problem] = {}
    for problem in _problems(error):
        key = _known_part(problem.key, data, missing=problem.found == MISSING)
        known = merged.get((key, problem.found))
        # pydantic reports a value that fits no member of a union once for each member.
        mend = problem.mend if known is None else f"{known.mend}, or {problem.mend.removeprefix('give ')}"
        merged[key, problem.found] = Problem(problem.found, mend, key)
    own = {each: key for each, key in at_the_defaults(merged, inherited or {}).items()
           if _place(each[0], places, file) == _place(key, places, file)}  # fmt: skip
    told = [Problem(p.found, p.mend, own.get(each, p.key)) for each, p in merged.items()]
    lines = list(dict.fromkeys(_said(problem, places, file) for problem in told))
    lines.sort(key=lambda line: line[0])
    shown = [text for _, text in lines[:MOST]]
    return "\n".join([*shown, *([f"... and {len(lines) - MOST} more"] if len(lines) > MOST else [])])


def _place(key: KeyPath, places: Mapping[KeyPath, _Location], file: _Location) -> _Location:
    return next((places[key[:n]] for n in range(len(key), 0, -1) if key[:n] in places), file)


def _said(problem: Problem, places: Mapping[KeyPath, _Location], file: _Location) -> tuple[int, str]:
    """The line (0 if there is none) and the message."""
    place, field = _place(problem.key, places, file), ".".join(map(str, problem.key))
    return place.line or 0, complaint(problem.found, problem.mend, file=place.file, line=place.line, field=field)


def _problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        at = tuple(detail["loc"])
        if isinstance(cause, ProblemsError):
            yield from (Problem(problem.found, problem.mend, at + problem.key) for problem in cause.problems)
        elif detail["type"] == "extra_forbidden":
            yield unknown_key(str(at[-1]), _keys_at(at[:-1]), parents=at[:-1])
        else:
            yield problem_of(detail)


def _known_part(key: KeyPath, data: Any, *, missing: bool) -> KeyPath:
    """The part of the key that exists in `data` (or is missing there): pydantic appends names of union members."""
    for number, part in enumerate(key):
        if isinstance(data, dict) and (part in data or (missing and number == len(key) - 1)):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return key[:number]
    return key


def _keys_at(key: KeyPath) -> list[str]:
    """The valid keys of the section at `key`."""
    section: type[BaseModel] = Config
    for part in key:
        if isinstance(part, str):
            section = next(_sections(section.model_fields[part].annotation))
    names = [field.alias or name for name, field in section.model_fields.items()]
    return names if section is not Config else [*names, DATASET_DEFAULTS]


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _sections(argument)
