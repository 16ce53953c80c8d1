"""Phrases that only an insider reads at first sight are gone from what people read (CONTRIBUTING.md, the word list).

Checked are the texts of the documentation, and in the code the strings and docstrings, not the names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHRASES = {
    "Mend:": "Fix:",
    "to mend": "to fix",
    "reckoned": "estimated",
    "surviving trajectory": "final path",
    "abandoned": "discarded",
    "let go of": "dropped",
    "lets go of": "drops",
    "The answer is the model": "The final model is",
    "better than every other one": "significantly better than all others",
    "control score": "search score",
    "no number": "NaN or infinite",
    "of its own accord": "itself",
    "nobody": "no process, none",
    "whoever": "the one that",
    "on trial": "as a probe",
    "goes on bit for bit": "continues bit for bit",
    "can mend": "can fix",
    "where people read": "for people",
    "is told of": "is reported",
    "put down": "written",
    "dearest": "most expensive",
    "horizon": "max_epochs, the limit on epochs",
}
ALLOWED = {
    # The field's own word for what a name in the code stands for, and journals that were written with it.
    "horizon": re.compile(r"`?Brief\.horizon|brief\.horizon|settings\.horizon|`horizon`|\bhorizon=|method\.horizon"
                          r"|\"horizon\"|'horizon'|time horizon"),
    "no number": re.compile(r"There is no number|no number (changes|of)"),
}  # fmt: skip
EXEMPT = {
    "CHANGELOG.md": "says what was called otherwise",
    "docs/log.md": "says what was called otherwise",
    "CONTRIBUTING.md": "has the word list",
    "docs/design.md": "explains the words",
}


@cache
def texts() -> list[tuple[str, int, str]]:
    """(file, line, text) of everything that people read."""
    return list(_texts())


def _texts() -> Iterator[tuple[str, int, str]]:
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.yaml")]):
        name = path.relative_to(ROOT).as_posix()
        if name not in EXEMPT:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield name, number, line
    for path in sorted((ROOT / "src").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield name, node.lineno, node.value


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_is_gone(phrase: str) -> None:
    word = re.compile(rf"\b{re.escape(phrase)}(?!\w)", re.IGNORECASE)
    allowed = ALLOWED.get(phrase)
    found = [
        f"{name}:{number}: {text.strip()[:120]}"
        for name, number, text in texts()
        if word.search(allowed.sub("", text) if allowed else text)
    ]
    assert not found, f"say {PHRASES[phrase]!r} instead of {phrase!r}:\n" + "\n".join(found)


def test_the_exempt_files_exist() -> None:
    assert all((ROOT / name).is_file() for name in EXEMPT)
