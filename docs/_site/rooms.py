"""Counts and draws the rooms of the package: `python docs/_site/rooms.py [--src src/msft] [--svg docs/rooms.svg]`.

A room is a package directly under the source folder, or a loose file there. Imports are read from the source text:
those in functions count, those under `if TYPE_CHECKING:` do not. `import msft.x.y` is an import of `msft/x/y.py` alone,
not of the packages around it. Standard library only.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, combinations, pairwise
from math import fsum
from pathlib import Path
from statistics import fmean as mean
from xml.sax.saxutils import escape

Graph = Mapping[str, frozenset[str]]
"""What each node imports."""

CONTRACT = "Rooms: imports run downwards only"
"""The import-linter contract that orders the rooms."""
ROOT = Path(__file__).resolve().parents[2]
DRAWING = ROOT / "docs" / "rooms.svg"
COMMAND = "`python docs/_site/rooms.py --svg docs/rooms.svg`"


# Reading


def modules(source: Path) -> dict[str, Path]:
    """Every module under the source folder, by its dotted name; the folder's name is the package's."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = (source.name, *file.relative_to(source).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements below a node, except those for type checkers only."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.orelse:
            yield from statements(statement)
    else:
        for child in ast.iter_child_nodes(node):
            yield from statements(child)


def names(statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """The dotted names that a statement in a module of `package` asks for."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    base = statement.module or ""
    if statement.level:
        around = package.split(".")
        above = around[: len(around) - statement.level + 1]
        base = ".".join([*above, base] if base else above)
    yield from (f"{base}.{alias.name}" for alias in statement.names)


def imports(source: Path) -> dict[str, frozenset[str]]:
    """What each module imports of the package: a module, or the one that a name is taken from."""
    known = modules(source)
    graph = {}
    for module, file in known.items():
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        asked = (name for statement in statements(tree) for name in names(statement, package))
        homes = (name if name in known else name.rpartition(".")[0] for name in asked)
        graph[module] = frozenset(home for home in homes if home in known and home != module)
    return graph


# Graphs


def components(graph: Graph) -> list[tuple[str, ...]]:
    """Strongly connected components (Tarjan), each after those that it imports."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []
    done: set[str] = set()

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
            if other not in done:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            start = stack.index(node)
            found.append(tuple(sorted(stack[start:])))
            done.update(stack[start:])
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def floors(graph: Graph) -> dict[str, int]:
    """The length of the longest path below each node; the nodes of a circle are on one floor."""
    floor: dict[str, int] = {}
    for component in components(graph):
        below = {other for node in component for other in graph[node]} - set(component)
        floor.update(dict.fromkeys(component, 1 + max((floor[other] for other in below), default=-1)))
    return floor


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """Components of more than one node."""
    return [component for component in components(graph) if len(component) > 1]


# Rooms


@dataclass(frozen=True)
class Rooms:
    """The rooms of one source folder."""

    source: Path
    files: Graph

    @classmethod
    def of(cls, source: Path) -> Rooms:
        return cls(source.resolve(), imports(source.resolve()))

    @cached_property
    def members(self) -> dict[str, list[str]]:
        """The modules of each room."""
        rooms: dict[str, list[str]] = {}
        for module in self.files:
            rooms.setdefault(self.room(module), []).append(module)
        return rooms

    def room(self, module: str) -> str:
        """The room of a module; the package's own `__init__` is a room of one file."""
        return module.split(".")[1] if "." in module else "__init__"

    @cached_property
    def graph(self) -> dict[str, frozenset[str]]:
        """Which rooms each room imports."""
        return {
            room: frozenset(self.room(other) for module in members for other in self.files[module]) - {room}
            for room, members in self.members.items()
        }

    @property
    def loose(self) -> list[str]:
        return [room for room in self.members if (self.source / f"{room}.py").is_file()]

    def about(self, room: str) -> str:
        """The first sentence of the room's docstring, without what it cites."""
        file = modules(self.source).get(self.source.name if room == "__init__" else f"{self.source.name}.{room}")
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file else None
        plain = re.sub(r"\s*\((?:design|arXiv)[^)]*\)", "", " ".join((said or "").split()), flags=re.IGNORECASE)
        return re.split(r"(?<=[.!?])\s", plain.replace("`", ""), maxsplit=1)[0]

    @property
    def arrows(self) -> list[tuple[str, str]]:
        return sorted((room, other) for room, others in self.graph.items() for other in others)

    @cached_property
    def layers(self) -> list[list[str]] | None:
        """The contract's layers from the top, each a list of rooms that may not import each other."""
        found = next((folder for folder in self.source.parents if (folder / "pyproject.toml").is_file()), None)
        if found is None:
            return None
        tools = tomllib.loads((found / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
        contracts = tools.get("importlinter", {}).get("contracts", [])
        layers = next((contract["layers"] for contract in contracts if contract["name"] == CONTRACT), None)
        return layers and [[name.strip(" ()").rpartition(".")[2] for name in layer.split("|")] for layer in layers]

    @property
    def upward(self) -> list[tuple[str, str]] | None:
        """The arrows against the contract; None without one. Rooms that it does not name are above all others."""
        if self.layers is None:
            return None
        depth = {room: number for number, layer in enumerate(self.layers) for room in layer}
        return [(room, other) for room, other in self.arrows if room in depth and depth[room] >= depth.get(other, -1)]


def measures(rooms: Rooms) -> dict[str, int | str]:
    """What `main` prints, by name."""
    upward = rooms.upward
    return {
        "rooms": len(rooms.members),
        "floors": 1 + max(floors(rooms.graph).values(), default=-1),
        "arrows": len(rooms.arrows),
        "arrows up": "unknown: no contract" if upward is None else len(upward),
        "circles of files": len(circles(rooms.files)),
        "circles of rooms": len(circles(rooms.graph)),
        "loose files": len(rooms.loose),
    }


def reduction(graph: Graph) -> list[tuple[str, str]]:
    """The arrows that do not follow from other arrows; arrows within a circle are left out."""
    home: dict[str, tuple[str, ...]] = {}
    reach: dict[str, set[str]] = {}
    for component in components(graph):
        home.update(dict.fromkeys(component, component))
        beyond = {other for node in component for other in graph[node]} - set(component)
        reached = set(component).union(*(reach[other] for other in beyond))
        reach.update(dict.fromkeys(component, reached))
    return [
        (node, other)
        for node in sorted(graph)
        for other in sorted(graph[node])
        if home[node] != home[other]
        and not any(other in reach[way] for way in graph[node] if home[way] not in (home[node], home[other]))
    ]


# Drawing

WIDTH, MARGIN, LEFT = 1100, 24, 64
"""Of the drawing, of its edges, and of the column with the floors' numbers."""
LANE, SPACE, GAP = 30, 26, 46
"""Width of an arrow that passes a floor; between two neighbours on a floor; between two floors."""
WIDEST, LINE, LETTER = 310, 16, 6.7
"""Of a box; height of a line of small text; width of its average letter in a wide font."""
CENTRE = 0.2
"""How strongly a node is pulled to the middle; a neighbouring room pulls with 1."""
HEAD = 92
"""Height of the title and the caption."""
STYLE = """\
text { font-family: system-ui, sans-serif; fill: #1b2433 }
.title { font-size: 20px; font-weight: 600 }
.name { font-size: 15px; font-weight: 600 }
.small { font-size: 12px; fill: #45516a }
.box { fill: #ffffff; stroke: #5b6b86; stroke-width: 1.2 }
.loose { stroke-dasharray: 5 3 }
.arrow { fill: none; stroke: #6b7a94; stroke-width: 1.4; marker-end: url(#head) }"""


class Layout:
    """Where rooms stand and arrows run. An arrow that passes floors has a lane of its own on each, beside the boxes."""

    def __init__(self, graph: Graph) -> None:
        floor = floors(graph)
        self.rows: list[list[str]] = [[] for _ in range(1 + max(floor.values()))]
        """Rooms and lanes of each floor from left to right; the lowest floor first."""
        self.chains: list[list[str]] = []
        """Each arrow from the top: a room, lanes, a room."""
        self.rooms = frozenset(graph)
        for room in sorted(graph):
            self.rows[floor[room]].append(room)
        for start, end in reduction(graph):
            lanes = {f"{start}>{end}@{level}": level for level in range(floor[start] - 1, floor[end], -1)}
            for lane, level in lanes.items():
                self.rows[level].append(lane)
            self.chains.append([start, *lanes, end])
        links = [link for chain in self.chains for link in pairwise(chain)]
        self.below = {node: [end for start, end in links if start == node] for row in self.rows for node in row}
        self.above = {node: [start for start, end in links if end == node] for row in self.rows for node in row}
        self._order()
        self.box = min(WIDEST, *(self._room_for_boxes(row) for row in self.rows if self.rooms.intersection(row)))
        self.x = self._place()

    def _room_for_boxes(self, row: Sequence[str]) -> int:
        boxes = len(self.rooms.intersection(row))
        taken = (len(row) - boxes) * LANE + (len(row) - 1) * SPACE
        return (WIDTH - MARGIN - LEFT - taken) // boxes

    def width(self, node: str) -> int:
        return self.box if node in self.rooms else LANE

    def _order(self) -> None:
        """Sorts each floor by its neighbours' places, up and down in turn; keeps the order with fewest crossings."""
        best = (self._crossings(), [list(row) for row in self.rows])
        for turn in range(24):
            near = self.below if turn % 2 else self.above
            for row in self.rows if turn % 2 else reversed(self.rows):
                place = {node: index / len(r) for r in self.rows for index, node in enumerate(r)}
                means = {node: mean(place[other] for other in near[node] or [node]) for node in row}
                row.sort(key=lambda node, means=means: means[node])  # type: ignore[misc]
            self._swap()
            best = min(best, (self._crossings(), [list(row) for row in self.rows]), key=lambda found: found[0])
        self.rows = best[1]

    def _swap(self) -> None:
        """Swaps neighbours while that takes crossings away."""
        fewest, better = self._crossings(), True
        while better:
            better = False
            for row in self.rows:
                for index in range(len(row) - 1):
                    row[index], row[index + 1] = row[index + 1], row[index]
                    if (found := self._crossings()) < fewest:
                        fewest, better = found, True
                    else:
                        row[index], row[index + 1] = row[index + 1], row[index]

    def _crossings(self) -> int:
        total = 0
        for lower, upper in pairwise(self.rows):
            place = {node: index for index, node in enumerate(lower)}
            ends = [sorted(place[other] for other in self.below[node]) for node in upper]
            total += sum(b < a for one, two in combinations(ends, 2) for a in one for b in two)
        return total

    def _place(self) -> dict[str, float]:
        """The middle of each node: near those of its neighbours, in order, not overlapping."""
        centre = (WIDTH - MARGIN + LEFT) / 2
        x = dict.fromkeys((node for row in self.rows for node in row), centre)
        for turn in range(1000):
            for row in self.rows if turn % 2 else reversed(self.rows):
                wanted, weights = [], []
                for node in row:
                    pulls = {other: self._pull(node, other) for other in (*self.above[node], *self.below[node])}
                    weights.append(CENTRE + sum(pulls.values()))
                    total = fsum([CENTRE * centre, *(pull * x[other] for other, pull in pulls.items())])
                    wanted.append(total / weights[-1])
                gaps = [(self.width(a) + self.width(b)) / 2 + SPACE for a, b in pairwise(row)]
                first, last = self.width(row[0]) / 2, self.width(row[-1]) / 2
                settled = settle(wanted, weights, gaps, LEFT + first, WIDTH - MARGIN - last)
                x.update(zip(row, settled, strict=True))
        return x

    def _pull(self, node: str, other: str) -> int:
        """How strongly two neighbours want to stand one above the other: lanes more than rooms, for straight arrows."""
        return (1, 2, 100)[(node not in self.rooms) + (other not in self.rooms)]

    def ports(self) -> dict[tuple[str, str, bool], float]:
        """Where each link leaves its upper node (True) and meets its lower one (False): spread over the box's side."""
        found: dict[tuple[str, str, bool], float] = {}
        for down, near in ((True, self.below), (False, self.above)):
            for node, others in near.items():
                step = min(44, (self.box - 40) / max(1, len(others)))
                for index, other in enumerate(sorted(others, key=lambda other: self.x[other])):
                    key = (node, other, down) if down else (other, node, down)
                    found[key] = self.x[node] + (index - (len(others) - 1) / 2) * step
        return found


def settle(
    wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float], low: float, high: float
) -> list[float]:
    """The positions between `low` and `high` nearest to those wanted, in order and at least `gaps` apart."""
    offsets = [0.0, *accumulate(gaps)]
    blocks: list[tuple[float, float, int]] = []  # sum of weighted positions, of weights, number
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        block = ((want - offset) * weight, float(weight), 1)
        while blocks and blocks[-1][0] / blocks[-1][1] > block[0] / block[1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    flat = [total / weight for total, weight, number in blocks for _ in range(number)]
    top = high - offsets[-1]
    return [min(max(value, low), top) + offset for value, offset in zip(flat, offsets, strict=True)]


def draw(rooms: Rooms) -> str:
    """The rooms as SVG: floors from top to bottom, arrows that do not follow from others."""
    layout = Layout(rooms.graph)
    letters = int((layout.box - 24) / LETTER)
    words = {room: textwrap.wrap(rooms.about(room), letters, break_on_hyphens=False) for room in rooms.graph}
    tops: list[float] = []
    heights = [38 + LINE * max(len(words.get(node, ())) for node in row) for row in layout.rows]
    y = float(HEAD + 20)
    for height in reversed(heights):
        tops.insert(0, y)
        y += height + GAP
    parts = [*_frame(rooms, int(y - GAP + MARGIN)), *_arrows(layout, tops, heights)]
    for level, row in enumerate(layout.rows):
        middle = tops[level] + heights[level] / 2
        parts.append(f'<text class="small" x="{MARGIN}" y="{middle + 4:.0f}">{level + 1}</text>')
        for room in sorted(layout.rooms.intersection(row)):
            left = layout.x[room] - layout.box / 2
            parts += _box(rooms, room, words[room], (left, tops[level], layout.box, heights[level]))
    return "\n".join([*parts, "</svg>", ""])


def _frame(rooms: Rooms, height: int) -> Iterator[str]:
    name = escape(rooms.source.name)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    yield f"<title>The rooms of {name}</title>\n<style>\n{STYLE}\n</style>"
    yield '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
    yield ' orient="auto"><path d="M0 0.8 L10 5 L0 9.2 z" fill="#6b7a94"/></marker></defs>'
    yield f'<rect width="{WIDTH}" height="{height}" rx="12" fill="#f4f6fa"/>'
    yield f'<text class="title" x="{MARGIN}" y="40">The rooms of {name}</text>'
    caption = [
        "A box is a package, or a file beside the packages (dashed). An arrow points to a room that is imported.",
        "Arrows that follow from others are left out (transitive reduction). On the left: the number of the floor.",
    ]
    caption += [f"Rooms that import each other: {', '.join(circle)}." for circle in circles(rooms.graph)]
    for number, line in enumerate(caption):
        yield f'<text class="small" x="{MARGIN}" y="{62 + LINE * number}">{escape(line)}</text>'


def _box(rooms: Rooms, room: str, words: Sequence[str], place: tuple[float, float, float, float]) -> Iterator[str]:
    x, y, width, height = place
    files = len(rooms.members[room])
    kind = "box loose" if room in rooms.loose else "box"
    start = y + (height - 38 - LINE * len(words)) / 2
    yield f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8"/>'
    yield f'<text class="name" x="{x + 12:.1f}" y="{start + 23:.1f}">{escape(room)}</text>'
    count = "1 file" if files == 1 else f"{files} files"
    yield f'<text class="small" x="{x + width - 12:.1f}" y="{start + 23:.1f}" text-anchor="end">{count}</text>'
    for number, line in enumerate(words, start=1):
        yield f'<text class="small" x="{x + 12:.1f}" y="{start + 25 + LINE * number:.1f}">{escape(line)}</text>'


def _arrows(layout: Layout, tops: Sequence[float], heights: Sequence[float]) -> Iterator[str]:
    ports = layout.ports()
    level = {node: number for number, row in enumerate(layout.rows) for node in row}
    for chain in layout.chains:
        path = ""
        for start, end in pairwise(chain):
            x, y = ports[start, end, True], tops[level[start]] + heights[level[start]]
            to, down = ports[start, end, False], tops[level[end]] - (1 if end == chain[-1] else 0)
            bend = (down - y) * 0.55
            path += f"{'L' if path else 'M'}{x:.1f} {y:.1f} "
            path += f"C{x:.1f} {y + bend:.1f} {to:.1f} {down - bend:.1f} {to:.1f} {down:.1f} "
        yield f'<path class="arrow" d="{path.strip()}"/>'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Counts and draws the rooms of a package.")
    parser.add_argument("--src", type=Path, default=ROOT / "src" / "msft", help="the package's folder (%(default)s)")
    parser.add_argument("--svg", type=Path, help="writes the drawing to this file")
    parser.add_argument("--check", action="store_true", help="fails if the drawing is not what the code would draw")
    given = parser.parse_args(arguments)
    rooms = Rooms.of(given.src)
    for name, value in measures(rooms).items():
        print(f"{name}: {value}")
    if given.check:
        file = given.svg or DRAWING
        if not file.is_file() or file.read_text(encoding="utf-8") != draw(rooms):
            print(f"{file} is out of date: run {COMMAND}", file=sys.stderr)
            return 1
    elif given.svg:
        given.svg.write_text(draw(rooms), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
