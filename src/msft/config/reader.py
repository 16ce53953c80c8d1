"""Reads and writes configuration files: line numbers, overrides, and all mistakes in one message (design 4)."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from msft.config.dataset_defaults import KEY as DATASET_DEFAULTS
from msft.config.dataset_defaults import at_the_defaults
from msft.config.method_section import Common, later
from msft.config.problems import Problem, ProblemsError, unknown_key
from msft.config.schema import Config
from msft.config.section import MISSING, problem_of
from msft.config.written import Location, apply, key_of, place_of, read, said, written
from msft.config.yaml12 import emit
from msft.core.errors import ConfigError
from msft.core.paths import expanded
from msft.core.wire import KeyPath, kept

MOST = 20
"""Maximum number of problems shown in one message."""
OF_MODEL, OF_DATA = ("name_or_path", "tokenizer", "chat_template"), "path"
"""Keys of the model, and of a data set or split, whose values may be paths."""


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `a.b=value` overrides applied.

    Relative paths of models and data sets that exist in the folder of the file, or else in the working directory,
    become absolute; all others are taken as hub ids. Raises ConfigError, naming every problem by file, line and field.
    """
    found = written(Path(path), overrides)
    data = found.data
    data.pop(DATASET_DEFAULTS, None)
    _absolute_paths(data, Path(path).parent)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_listing(error, data, found.places, found.file, found.inherited)) from None


def output_of(path: Path, overrides: Sequence[str] = ()) -> Path | None:
    """The run folder that a file names, whatever else is wrong with it; None if it names none. Raises ConfigError if
    the file is not YAML."""
    data = read(path).data
    for override in overrides:
        if key_of(override) == "output":
            apply(data, {}, override)
    output = data.get("output")
    return expanded(output) if isinstance(output, str) else None


def from_mapping(data: Mapping[str, Any], source: str) -> Config:
    """The configuration in a mapping. Raises ConfigError, naming `source` and the field of every problem."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_listing(error, data, {}, Location(source, None))) from None


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


def _absolute_paths(data: dict[str, Any], folder: Path) -> None:
    """Replace relative paths that exist by absolute ones, so that the working directory may change."""
    model, datasets, output = data.get("model"), data.get("datasets"), data.get("output")
    if isinstance(output, str) and output.startswith("~"):
        data["output"] = str(expanded(output))
    owners: list[tuple[Any, str]] = [(model, key) for key in OF_MODEL]
    for dataset in [*(datasets if isinstance(datasets, list) else []), data.get("aggregate")]:
        splits = [dataset.get("validation"), dataset.get("test")] if isinstance(dataset, dict) else []
        owners += [(owner, OF_DATA) for owner in (dataset, *splits)]
    for owner, key in owners:
        written = owner.get(key) if isinstance(owner, dict) else None
        if isinstance(written, str):
            owner[key] = _absolute(written, folder)


def with_absolute_path(override: str, folder: Path) -> str:
    """An override `a.b=value` that means the same in any working directory. `folder`: as for `load`."""
    key, equals, value = override.partition("=")
    is_place = key.rpartition(".")[2].strip() in (*OF_MODEL, OF_DATA)
    return f"{key}{equals}{_absolute(value, folder)}" if is_place else override


def _absolute(written: str, folder: Path) -> str:
    """A relative path that exists in the folder, or else in the working directory, as an absolute one; all else as it
    is."""
    if not written.strip() or "\n" in written or "\0" in written:
        return written
    for base in (folder, Path()):
        target = base.resolve() / expanded(written)
        if _leads_somewhere(target):
            return str(target.resolve())
    return written


def _leads_somewhere(path: Path) -> bool:
    try:
        return path.exists() or ("*" in path.name and any(path.parent.glob(path.name)))
    except OSError:  # for example, an inline chat template is too long for a file name
        return False


def _listing(
    error: ValidationError,
    data: Any,
    places: Mapping[KeyPath, Location],
    file: Location,
    inherited: Mapping[KeyPath, KeyPath] | None = None,
) -> str:
    """All problems, one per line, in the order of the file."""
    merged: dict[tuple[KeyPath, str], Problem] = {}
    for problem in _problems(error):
        key = _known_part(problem.key, data, missing=problem.found == MISSING)
        known = merged.get((key, problem.found))
        # pydantic reports a value that fits no member of a union once for each member.
        fix = problem.fix if known is None else f"{known.fix}, or {problem.fix.removeprefix('give ')}"
        merged[key, problem.found] = Problem(problem.found, fix, key)
    own = {each: key for each, key in at_the_defaults(merged, inherited or {}).items()
           if place_of(each[0], places, file) == place_of(key, places, file)}  # fmt: skip
    told = [Problem(p.found, p.fix, own.get(each, p.key)) for each, p in merged.items()]
    lines = list(dict.fromkeys((place_of(p.key, places, file).line or 0, said(p, places, file)) for p in told))
    lines.sort(key=lambda line: line[0])
    shown = [text for _, text in lines[:MOST]]
    return "\n".join([*shown, *([f"... and {len(lines) - MOST} more"] if len(lines) > MOST else [])])


def _problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        at = tuple(detail["loc"])
        if isinstance(cause, ProblemsError):
            yield from (Problem(problem.found, problem.fix, at + problem.key) for problem in cause.problems)
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
