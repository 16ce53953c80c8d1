"""Every command in the documentation runs: each page in a folder of its own, from top to bottom.

A code block whose title is a file's name is written to that file. A `bash` block without a title runs, on a tiny model
in place of the named one. One with a title ("needs a GPU") is only read: its msft commands must parse.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from job import make_model

from msft.cli.main import main, parser
from msft.config.reader import load
from msft.methods import METHODS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)?(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODELS = ("Qwen/Qwen2.5-0.5B", "home/.cache/msft/SmolLM2-135M-Instruct")
READ_ONLY = {"git", "cd", "make", ".", "pip", "hf", "accelerate", "torchrun"}
"""Programs that a block with a title may name beside msft."""


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [shlex.split(line, comments=True) for line in lines]
        return [[home(word) for word in words] for words in found if words]


def home(word: str) -> str:
    """As a shell expands it."""
    return str(Path(word).expanduser()) if word.startswith("~/") else word


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(language or "", title or "", body) for language, title, body in BLOCK.findall(text)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "tiny", positions=2048)
    return folder / "tiny"


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of a reader: the models that pages name, and data that they take for granted."""
    known = dict(METHODS)
    for name in MODELS:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(models)
    (tmp_path / "data").mkdir()
    for task in ("sums", "words", "more"):
        rows = [{"prompt": f"{task} {i}", "completion": f" {7 * i}"} for i in range(110)]
        (tmp_path / "data" / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    yield tmp_path
    METHODS.clear()  # a page may add its own
    METHODS.update(known)


def runs(block: Block) -> bool:
    return block.language == "bash" and not block.title


LONG = {"README.md", "docs/tutorial.md"}
PAGES_THAT_RUN = [
    pytest.param(page, id=named(page), marks=[pytest.mark.e2e] if named(page) in LONG else [])
    for page in PAGES
    if any(map(runs, blocks(page)))
]


@pytest.mark.parametrize("page", PAGES_THAT_RUN)
def test_the_commands_of_a_page_run(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A page whose files lie in data/ makes all of its data itself.
    if any(block.title.startswith("data/") or "mkdir" in block.text for block in blocks(page)):
        for file in (place / "data").iterdir():
            file.unlink()
    for block in blocks(page):
        if "." in block.title:
            (place / block.title).parent.mkdir(exist_ok=True)
            (place / block.title).write_text(block.text)
        if runs(block):
            for command in block.commands:
                run(command, monkeypatch)


def run(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = command
    if program == "msft":
        assert main(arguments) == 0, shlex.join(command)
        return
    assert program == "python", f"give this block a title, or let this test run {program}"
    monkeypatch.setattr(sys, "argv", arguments)
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, shlex.join(command)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_are_only_shown_are_commands_of_ours(page: Path) -> None:
    for block in blocks(page):
        if block.language != "bash" or not block.title:
            continue
        for command in block.commands:
            module = next((i for i, word in enumerate(command) if command[i - 1 : i + 1] == ["-m", "msft"]), None)
            if command[0] == "msft" or module is not None:
                parser().parse_args(command[(module or 0) + 1 :])
            else:
                assert command[0] in READ_ONLY, f"what is {shlex.join(command)}?"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_command_hides_in_another_block(page: Path) -> None:
    """What begins with msft stands in a `bash` block, where it is checked."""
    for block in blocks(page):
        if block.language not in ("bash", "python", "text"):
            assert not re.search(r"^(\$ )?(msft|python -m msft|python my_\w+) ", block.text, re.MULTILINE), block.text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_configurations_are_valid(page: Path, place: Path) -> None:
    """Those that are whole files; the reader names what is wrong."""
    for block in blocks(page):
        if block.language == "yaml" and block.title.endswith(".yaml") and "half_time" not in block.text:
            (place / "one.yaml").write_text(block.text)
            assert load(place / "one.yaml").method.name in METHODS
