"""The structure of the package, counted by docs/_site/rooms.py, keeps to its limits; the drawing of it is current."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "msft"
SCRIPT = ROOT / "docs" / "_site" / "rooms.py"
DRAWING = ROOT / "docs" / "rooms.svg"

LIMITS = {
    "rooms": 20,
    "floors": 11,
    "arrows up": 0,
    "circles of files": 0,
    "circles of rooms": 0,
    "loose files": 2,
}
LONGEST = 340
"""Lines of a file."""

MADE_UP = {
    "__init__.py": '__version__ = "1"\n',
    "shop/__init__.py": '"""Sells (design 1.2). Not drawn."""\n',
    "shop/till.py": "from typing import TYPE_CHECKING\n\nfrom tiny.store import shelf\n"
    "if TYPE_CHECKING:\n    from tiny.office import boss\n",
    "office/__init__.py": "",
    "office/boss.py": "from .desk import chair\nfrom ..store import shelf\n",
    "office/desk.py": "import tiny.office.boss\n\nchair = 1\n",
    "store/__init__.py": "",
    "store/shelf.py": "def refill():\n    from tiny.shop.till import sell\n    from tiny import __version__\n",
}
CONTRACT = """\
[[tool.importlinter.contracts]]
name = "Rooms: imports run downwards only"
layers = ["tiny.shop | tiny.office", "tiny.store"]
"""


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    found = importlib.util.spec_from_file_location("rooms", SCRIPT)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["rooms"] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    yield module
    del sys.modules["rooms"]


@pytest.fixture(scope="module")
def rooms(script: ModuleType) -> Any:
    return script.Rooms.of(SOURCE)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A package with a circle within a room, a circle of rooms, and imports upwards."""
    for name, text in MADE_UP.items():
        file = tmp_path / "src" / "tiny" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    return tmp_path / "src" / "tiny"


@pytest.mark.parametrize("measure", LIMITS)
def test_the_structure_keeps_to_its_limits(script: ModuleType, rooms: Any, measure: str) -> None:
    found = script.measures(rooms)[measure]
    details = {"upward": rooms.upward, "circles": script.circles(rooms.files), "loose": rooms.loose}
    assert found <= LIMITS[measure], details


def test_every_room_has_its_place_in_the_contract(rooms: Any) -> None:
    assert {room for layer in rooms.layers for room in layer} == rooms.members.keys() - set(rooms.loose)


def test_the_drawing_is_current(script: ModuleType, rooms: Any) -> None:
    assert DRAWING.read_text(encoding="utf-8") == script.draw(rooms), f"run {script.COMMAND}"


def test_no_two_files_share_a_name() -> None:
    names = Counter(file.name for file in SOURCE.rglob("*.py") if file.name != "__init__.py")
    assert [name for name, number in names.items() if number > 1] == []


def test_no_file_is_long() -> None:
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    assert {str(file.relative_to(ROOT)): number for file, number in lines.items() if number > LONGEST} == {}


def test_circles_and_upward_imports_of_a_made_up_package(script: ModuleType, tiny: Path) -> None:
    rooms = script.Rooms.of(tiny)
    assert rooms.files == {
        "tiny": frozenset(),
        "tiny.shop": frozenset(),
        "tiny.shop.till": {"tiny.store.shelf"},
        "tiny.office": frozenset(),
        "tiny.office.boss": {"tiny.office.desk", "tiny.store.shelf"},
        "tiny.office.desk": {"tiny.office.boss"},
        "tiny.store": frozenset(),
        "tiny.store.shelf": {"tiny.shop.till", "tiny"},
    }
    assert rooms.upward == [("store", "__init__"), ("store", "shop")]
    assert script.circles(rooms.graph) == [("shop", "store")]
    assert sorted(script.circles(rooms.files)) == [
        ("tiny.office.boss", "tiny.office.desk"),
        ("tiny.shop.till", "tiny.store.shelf"),
    ]
    assert script.measures(rooms) == {
        "rooms": 4,
        "floors": 3,
        "arrows": 4,
        "arrows up": 2,
        "circles of files": 2,
        "circles of rooms": 1,
        "loose files": 1,
    }


def test_an_import_for_type_checkers_only_is_not_counted(script: ModuleType, tiny: Path) -> None:
    assert "office" not in script.Rooms.of(tiny).graph["shop"]
    till = tiny / "shop" / "till.py"
    till.write_text(till.read_text() + "else:\n    from tiny.office import boss\n")
    rooms = script.Rooms.of(tiny)
    assert "office" in rooms.graph["shop"]
    assert ("shop", "office") in rooms.upward, "the contract's siblings do not import each other"


def test_arrows_that_follow_from_others_are_not_drawn(script: ModuleType) -> None:
    graph = {
        "a": frozenset("bcd"),
        "b": frozenset("cd"),
        "c": frozenset("d"),
        "d": frozenset("e"),
        "e": frozenset("d"),
        "f": frozenset("c"),
    }
    assert script.reduction(graph) == [("a", "b"), ("b", "c"), ("c", "d"), ("f", "c")]
    assert script.floors(graph) == {"a": 3, "b": 2, "c": 1, "d": 0, "e": 0, "f": 2}


def test_the_command_draws_and_checks(script: ModuleType, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = tiny / "rooms.svg"
    command = ["--src", str(tiny), "--svg", str(drawing)]
    assert script.main([*command, "--check"]) == 1
    assert script.main(command) == 0
    assert script.main([*command, "--check"]) == 0
    assert "circles of rooms: 1\n" in capsys.readouterr().out
    texts = [element.text or "" for element in ElementTree.parse(drawing).iter() if element.tag.endswith("text")]
    assert {"shop", "office", "store", "__init__", "Sells.", "Rooms that import each other: shop, store."} <= {*texts}
    (tiny / "office" / "desk.py").unlink()
    assert script.main([*command, "--check"]) == 1, "a room has one file less"


def test_boxes_and_lanes_do_not_overlap(script: ModuleType, rooms: Any) -> None:
    layout = script.Layout(rooms.graph)
    for row in layout.rows:
        edges = [(layout.x[node] - layout.width(node) / 2, layout.x[node] + layout.width(node) / 2) for node in row]
        assert edges[0][0] >= 0
        assert edges[-1][1] <= script.WIDTH
        assert all(right <= left for (_, right), (left, _) in pairwise(edges)), row
