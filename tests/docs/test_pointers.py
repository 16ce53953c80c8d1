"""No pointer leads nowhere: the files, the links and the sections of the design that code and documentation name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "msft"
DESIGN_PAGE = ROOT / "docs" / "design.md"

CHECKED = (
    "src/**/*.py",
    "tests/**/*.py",
    "docs/**/*.md",
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/*.py",
    "examples/*.py",
)
OTHERS = (
    *("*.md", "*.toml", "*.yml", "*.yaml", "Makefile", "docs/**/*.py", ".ci/*", ".github/**/*.md", ".github/**/*.yml"),
    *(f"{folder}/**/*.{kind}" for folder in ("benchmarks", "examples", "recipes") for kind in ("py", "md", "yaml")),
)
"""Searched for citations of the design as well."""

TOP = ("src", "tests", "docs", "benchmarks", "examples", "recipes")
ROOMS = sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file())
GENERATED = {f"docs/reference/{name}.md" for name in ("configuration", "methods", "commands")}
"""Pages that docs/_site/hooks.py makes."""

PATH = re.compile(rf"(?<![\w./<>{{}}*-])((?:{'|'.join([*TOP, *ROOMS])})/(?:[\w.-]+/)*[\w.-]+\.(?:py|md))\b")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^()\s#]+)(?:#[^()\s]*)?\)")
NUMBER = r"\d+(?:\.\d+)*"
CITATION = re.compile(rf"\bdesign(?:\.md`?)?[\s#]+({NUMBER}(?:(?:,|,? and| to)[\s#]+{NUMBER})*)", re.IGNORECASE)
HEADING = re.compile(rf"^#{{2,4}} ({NUMBER})\.?\s", re.MULTILINE)
CAPITALS = re.compile(rf"\b{'design'.upper()}\b")


def files(*patterns: str) -> list[Path]:
    """The files that match, without this one: it makes pointers up."""
    found = {file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file()}
    return sorted(file for file in found if "__pycache__" not in file.parts and file != Path(__file__))


def found(pattern: re.Pattern[str], *, where: tuple[str, ...] = CHECKED) -> Iterator[tuple[Path, str, str]]:
    """Each match as its file, its place in words and its first group, or all of it."""
    for file in files(*where):
        text = file.read_text(encoding="utf-8")
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield file, f"{file.relative_to(ROOT)}:{line}", match.group(pattern.groups and 1)


def exists(path: str) -> bool:
    """Whether a path leads to a file, from the top folder or from the package's."""
    return path in GENERATED or (ROOT / path).is_file() or (SOURCE / path).is_file()


def cited(words: str) -> list[str]:
    """The numbers in `3.8, 3.14`."""
    return re.findall(NUMBER, words)


def test_every_file_that_is_named_is_there() -> None:
    assert [f"{place}: {path}" for _, place, path in found(PATH) if not exists(path)] == []


def test_every_link_leads_to_a_file() -> None:
    pages = tuple(pattern for pattern in CHECKED if pattern.endswith(".md"))
    dangling = [
        f"{place}: {target}"
        for page, place, target in found(LINK, where=pages)
        for path in [(page.parent / target).resolve()]
        if not path.exists() and path.relative_to(ROOT).as_posix() not in GENERATED
    ]
    assert dangling == []


def test_every_section_of_the_design_that_is_cited_is_there() -> None:
    if not DESIGN_PAGE.is_file():
        pytest.skip("docs/design.md is not there")
    headings = set(HEADING.findall(DESIGN_PAGE.read_text(encoding="utf-8")))
    everywhere = (*CHECKED, *OTHERS)
    citations = [(place, number) for _, place, words in found(CITATION, where=everywhere) for number in cited(words)]
    assert [f"{place}: design {number}" for place, number in citations if number not in headings] == []


def test_the_design_is_cited_in_small_letters() -> None:
    everywhere = found(CAPITALS, where=(*CHECKED, *OTHERS))
    assert [place for file, place, _ in everywhere if file != DESIGN_PAGE] == []


def test_what_counts_as_a_pointer() -> None:
    text = (
        "`core/clock.py`, (see docs/theory.md), src/msft/no/such.py; but runs/a.md, ../docs/a.md and <folder>/core/b.py"
    )
    assert PATH.findall(text) == ["core/clock.py", "docs/theory.md", "src/msft/no/such.py"]
    assert [exists(path) for path in PATH.findall(text)] == [True, True, False]
    assert LINK.findall("[a](scoring.md), [b](../data.md#top), [c](#here), [d](https://e.org/f.md)") == [
        "scoring.md",
        "../data.md",
    ]
    citations = CITATION.findall(
        "design 3.8, 3.14). Design 2 and 5. By design, 3 of them; (design\n# 4); `design.md` 6; designs 7"
    )
    assert [cited(words) for words in citations] == [["3.8", "3.14"], ["2", "5"], ["4"], ["6"]]
    assert HEADING.findall("## 1. The methods\n### 1.1 msft\n## Others\n### 3.8 Tiers\n") == ["1", "1.1", "3.8"]
