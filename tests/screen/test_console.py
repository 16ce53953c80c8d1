"""Names are printed as they are: rich would make an emoji of `:name:` in a path, an id or a message."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import msft
from msft.cli.main import _say
from msft.screen import console
from msft.screen.console import new_console

SOURCE = Path(msft.__file__).parent


def test_text_between_colons_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    out = new_console(width=80)
    out.print("runs/p:star:q/final", markup=False)
    out.print("[bold]runs/p:star:q/final")
    _say("my_scorer:boom: raised KeyError")
    said = capsys.readouterr()
    assert said.out == "runs/p:star:q/final\nruns/p:star:q/final\n"
    assert said.err == "my_scorer:boom: raised KeyError\n"


def test_no_other_place_makes_a_console() -> None:
    """Nor `Text.from_markup`, whose emojis no console can switch off."""
    made = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in sorted(SOURCE.rglob("*.py"))
        if file != Path(console.__file__)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Console", "from_markup")
    ]
    assert made == []
