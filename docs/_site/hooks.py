"""MkDocs hooks: generate the reference pages from the schema, the parsers and the methods."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from msft.cli.example_commands import EXAMPLES
from msft.cli.json_schema import json_schema
from msft.cli.main import parser
from msft.config.method_section import Common
from msft.methods import METHODS

Schema = Mapping[str, Any]

INLINE = "RegexConfig"
"""A section with one key, shown inline."""

CONFIGURATION = """\
# Configuration

All keys of a configuration file, generated from the schema that checks it. Files are YAML 1.2: `no` is a string, `1e-5`
a number, and a duplicate key an error. Anchors, aliases and `<<` are read; tags are not. Unknown keys are errors, and
the message suggests the nearest key. `msft schema` prints the JSON Schema, for completion in editors. Any value can be
set on the command line: `--set training.batch_size=32`, `--set datasets.gsm8k.max_samples=100`. A dash means no
default: the key may be omitted.

Without a `method`, a configuration means `{name: msft}`, without averaged weights, as in version 0.1. `msft init`
writes what we advise: `auto`, with `training.average: 1`.
"""
ALL_METHODS = """\
# Methods

`method.name` selects the method. [Design 1](../design.md) and the [paper map](../paper_map.md) describe them. The first
table has the keys of every method. The table of a method has its own keys, and those whose default it changes.

## Keys of every method
"""
COMMANDS = """\
# Commands

In the order in which one needs them. Exit codes:

| code | meaning |
|---|---|
| 0 | success |
| 1 | runs of `msft compare` failed; the same command runs them again |
| 2 | an error that you can fix: file, line, field, problem, fix |
| 128 and a signal's number | a signal ended it: 130 Ctrl-C, 143 SIGTERM; everything in the journal is kept |
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds pages that mkdocs.yml does not list to the navigation: to "Use", or to "Laboratory"."""
    entries = config.nav or []
    sections = {title: pages for entry in entries if isinstance(entry, dict) for title, pages in entry.items()}
    listed = {entry for entry in entries if isinstance(entry, str)}.union(*sections.values())
    folder = Path(config.docs_dir)
    for file in sorted(folder.rglob("*.md")):
        page = file.relative_to(folder).as_posix()
        if page not in listed:
            sections["Use" if page.startswith("how_to/") else "Laboratory"].append(page)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {"configuration": configuration(), "methods": methods(), "commands": commands()}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def configuration() -> str:
    """All sections except the method's, in their order."""
    schema = json_schema()
    parts = [CONFIGURATION, *_section(schema, schema["$defs"], ())]
    return "\n".join(parts)


def methods() -> str:
    """One table of the common keys, and one per method of what differs from it."""
    common = Common.model_json_schema()["properties"]
    parts = [ALL_METHODS, _table({"properties": common}, {})]
    for alternative in (each for each in json_schema()["properties"]["method"]["oneOf"] if "properties" in each):
        name = alternative["title"]
        own = {
            key: value
            for key, value in alternative["properties"].items()
            if key not in ("name", "preset") and value != common.get(key)
        }
        about = inspect.getdoc(inspect.getmodule(METHODS[name].plan)) or ""
        parts += [f"\n## {name}\n", f"{about}\n", *([_table({"properties": own}, {})] if own else []), *_presets(name)]
    return "\n".join(parts)


def _presets(name: str) -> Iterator[str]:
    default, *others = METHODS[name].presets.items()
    for preset, values in others:
        said = ", ".join(f"`{key}: {'null' if value is None else value}`" for key, value in values.items())
        yield f"`preset: {preset}` (in place of `{default[0]}`) sets {said}.\n"


def commands() -> str:
    """One section per command, from its parser."""
    parts = [COMMANDS]
    top = parser()
    for action in top._subparsers._group_actions if top._subparsers else []:
        helps = {choice.dest: choice.help for choice in action._choices_actions}  # type: ignore[attr-defined]
        for name in EXAMPLES:
            command = action.choices[name]  # type: ignore[index]
            usage = " ".join(command.format_usage().split()).replace("usage: ", "")
            parts += [f"\n## msft {name}\n", f"{_sentence(helps.get(name))}\n", f"```text\n{usage}\n```\n"]
            parts += [_options(command)]
    return "\n".join(parts)


def _options(command: argparse.ArgumentParser) -> str:
    rows = []
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        names = ", ".join(action.option_strings) or str(value)
        shown = f"{names} {value}" if action.option_strings and action.nargs != 0 else names
        rows.append((_cell(f"`{shown}`"), _cell(action.help or "")))
    return _rows(("argument", "meaning"), rows) if rows else ""


def _section(schema: Schema, definitions: Mapping[str, Schema], path: tuple[str, ...]) -> Iterator[str]:
    """The table of a section, followed by those of its subsections."""
    if path:
        yield f"\n{'#' * min(len(path) + 1, 4)} {'.'.join(path)}\n"
        yield f"{schema.get('description', '')}\n"
    yield _table(schema, definitions)
    for key, value in schema["properties"].items():
        if key != "method" and (inner := _definition(value, definitions)) is not None:
            yield from _section(inner, definitions, (*path, f"{key}[]" if value.get("type") == "array" else key))


def _definition(value: Schema, definitions: Mapping[str, Schema]) -> Schema | None:
    """The section that a key contains, or a list of which it contains; None if it contains plain values."""
    for option in (value, value.get("items", {}), *value.get("anyOf", [])):
        name = option.get("$ref", "").rpartition("/")[2]
        if name in definitions and name != INLINE:
            found = definitions[name]
            return next(form for form in found.get("anyOf", [found]) if "properties" in form)  # not a bare name
    return None


def _table(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    required = set(schema.get("required", []))
    rows = []
    for key, value in schema["properties"].items():
        default = "**required**" if key in required else _default(value)
        if key == "method":
            rows.append(("`method`", "section", "`{name: msft}`", "See [methods](methods.md)."))
            continue
        inner = _definition(value, definitions) or {}
        meaning = value.get("description") or inner.get("description", "")
        rows.append((f"`{key}`", _values(value, definitions), default, _cell(meaning)))
    return _rows(("key", "value", "default", "meaning"), rows)


def _default(value: Schema) -> str:
    default = value.get("default")
    if default is None or isinstance(default, dict):
        return "–"
    return f"`{default:g}`" if isinstance(default, float) else f"`{str(default).lower()}`"


def _values(value: Schema, definitions: Mapping[str, Schema]) -> str:
    """The allowed values, in words."""
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{item}`" for item in value["enum"])
    if "$ref" in value:
        return "section" if not value["$ref"].endswith(INLINE) else "`{regex: ...}`"
    if "anyOf" in value:
        options = [_values(option, definitions) for option in value["anyOf"] if option.get("type") != "null"]
        # If null is the default, omitting the key has the same effect.
        null = value.get("default") is not None and {"type": "null"} in value["anyOf"]
        return " or ".join(dict.fromkeys([*options, *(["`null`"] if null else [])]))
    if "pattern" in value:
        return "`module:function`"
    kind = value.get("type", "value")
    if kind == "array":
        return f"list of {_values(value.get('items', {}), definitions)}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {value[key]}" for key, sign in bounds.items() if key in value)
    words = {"object": "mapping", "string": "text"}
    return f"{words.get(kind, kind)} {limits}".strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines: list[tuple[str, ...]] = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
