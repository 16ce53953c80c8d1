"""The reference is made from the code: nothing that the code takes is missing from it, and everything has a meaning."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from msft.cli.example_commands import EXAMPLES, STUDIES
from msft.cli.json_schema import json_schema
from msft.cli.main import parser
from msft.config.method_section import Common
from msft.methods import METHODS

HOOKS = Path(__file__).parents[2] / "docs" / "_site" / "hooks.py"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    found = importlib.util.spec_from_file_location("hooks", HOOKS)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from keys(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from keys(value)


def test_every_key_is_there_with_its_meaning(hooks: ModuleType) -> None:
    schema = json_schema()
    method = schema["properties"].pop("method")
    configuration, methods = hooks.configuration(), hooks.methods()
    for key in set(keys(schema)) - {"regex"}:
        assert f"| `{key}` |" in configuration, key
    for key in set(keys(method)) - {"name", "preset"}:
        assert f"| `{key}` |" in methods, key
    for name in METHODS:
        assert f"## {name}\n" in methods
    for line in (*configuration.splitlines(), *methods.splitlines()):
        assert not line.endswith("|  |"), f"a key without a meaning: {line}"


def test_every_command_and_option_is_there(hooks: ModuleType) -> None:
    page = hooks.commands()
    top = parser()
    assert top._subparsers
    for name, command in top._subparsers._group_actions[0].choices.items():  # type: ignore[union-attr, attr-defined]
        section = page.partition(f"## msft {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for action in command._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                assert option in section, f"{name} {option}"


def test_a_method_lists_its_own_keys_and_the_defaults_that_it_changes(hooks: ModuleType) -> None:
    tables = {part.partition("\n")[0]: part for part in hooks.methods().split("\n## ")}
    for key in Common.model_fields:
        assert f"| `{key}` |" in tables["Keys of every method"], key
    assert "| `select` | `best`, `last` | `last` |" in tables["continual"]
    assert "| `eval_every` |" not in tables["continual"]
    assert "| key |" not in tables["sft"]


def test_the_commands_have_the_order_of_their_use(hooks: ModuleType) -> None:
    headings = [line for line in hooks.commands().splitlines() if line.startswith("## ")]
    assert headings == [f"## msft {name}" for name in EXAMPLES]


def test_the_comparison_page_has_the_question_of_each_study() -> None:
    page = (HOOKS.parents[1] / "how_to" / "does_it_pay.md").read_text(encoding="utf-8")
    for name, question in STUDIES.items():
        assert f"| `{name}` | {question}" in page
