"""Reads and writes YAML 1.2: plain data only, with the line of every key.

ruamel.yaml composes the nodes and reads the numbers. Here they become plain data without tags: so dates and `1_000` are
strings, as in YAML's core schema, a file cannot construct objects, and what anchors repeat is bounded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from msft.core.errors import first_line
from msft.core.wire import KeyPath

DEEPEST = 20
"""Maximum levels of nesting: more than any configuration needs, too few to exhaust the stack."""
MOST_VALUES = 100_000
"""Maximum number of keys and values, aliases written out: a few lines of aliases can stand for billions."""

READ = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
"""What an unquoted scalar may be, other than a string."""
MERGE = "tag:yaml.org,2002:merge"
RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
"""Words that this or an older version of YAML does not read as strings."""
SAFE_UNQUOTED = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")


class UnreadableError(Exception):
    """The text is not valid YAML, or uses features of YAML that a configuration may not use."""

    def __init__(self, found: str, fix: str, line: int | None) -> None:
        super().__init__(found)
        self.found, self.fix, self.line = found, fix, line


@dataclass(frozen=True)
class Document:
    """Plain data, and the 1-based line of each key and list item."""

    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


def parse(text: str) -> Document:
    """The one document in `text`; empty text gives None. Raises UnreadableError."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        node = yaml.compose(text)
        if node is None:
            return Document(None)
        reader = _Reader(yaml)
        return Document(reader.value(node, ()), reader.lines)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = "not valid YAML: " + " ".join(part for part in (error.context, error.problem) if part)
        fix = "indent with spaces, never with tabs" if "\\t" in found else "fix the YAML"
        raise UnreadableError(found, fix, mark.line + 1 if mark else None) from None
    except (YAMLError, ValueError) as error:
        found = f"not valid YAML: {first_line(error)}"
        raise UnreadableError(found, "remove the character or fix the YAML", None) from None


def _too_deep(line: int) -> UnreadableError:
    return UnreadableError(f"more than {DEEPEST} levels of nesting", "nest less deeply", line)


class _Composer(Composer):
    """Refuses tags, which nodes no longer show, a second anchor of the same name, and deep nesting."""

    levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise UnreadableError(f"found the tag {event.tag}", "remove it: tags are not supported", line)
        anchor = getattr(event, "anchor", None)
        if anchor in self.anchors and not isinstance(event, AliasEvent):
            first = self.anchors[anchor].start_mark.line + 1
            found = f"the anchor &{anchor} appears twice (first on line {first})"
            raise UnreadableError(found, "give it another name", line)
        if self.levels > DEEPEST:
            raise _too_deep(line)
        self.levels += 1
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


class _Reader:
    """Makes plain data of nodes. A node that aliases repeat becomes new data each time: a change of one leaves the
    others as they are."""

    def __init__(self, yaml: YAML) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._yaml, self._number, self._open = yaml, 0, list[Node]()

    def value(self, node: Node, path: KeyPath) -> Any:
        if isinstance(node, ScalarNode):
            # YAML's core schema has no underscores in numbers.
            plain = node.style is None and str(node.tag) in READ and "_" not in node.value
            return self._yaml.constructor.construct_object(node) if plain else node.value
        with self._inside(node):
            if isinstance(node, SequenceNode):
                return [self._item(item, item, (*path, number)) for number, item in enumerate(node.value)]
            return {name: self._item(key, value, (*path, name)) for name, (key, value) in self._pairs(node).items()}

    def _item(self, place: Node, value: Node, path: KeyPath) -> Any:
        self.lines[path] = _line(place)
        return self.value(value, path)

    def _pairs(self, node: Node) -> dict[str, tuple[Node, Node]]:
        """The keys and values of a mapping: its own, then those that `<<` merges into it."""
        pairs: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise UnreadableError("found a key that is not a plain name", "use a plain name as key", _line(key))
            if key.value in pairs:
                found = f"the key {key.value!r} appears twice (first on line {_line(pairs[key.value][0])})"
                raise UnreadableError(found, "keep one of them", _line(key))
            pairs[key.value] = key, value
        if "<<" not in pairs or str(pairs["<<"][0].tag) != MERGE:  # quoted, it is a name as any other
            return pairs
        _, merged = pairs.pop("<<")
        for base in merged.value if isinstance(merged, SequenceNode) else [merged]:
            if not isinstance(base, MappingNode):
                raise UnreadableError("found a value that << cannot merge", "give it an alias of keys", _line(base))
            with self._inside(base):
                pairs = self._pairs(base) | pairs
        return pairs

    @contextmanager
    def _inside(self, node: Node) -> Iterator[None]:
        if any(node is above for above in self._open):
            raise UnreadableError(f"&{node.anchor} contains itself", "write the value in full", _line(node))
        if len(self._open) > DEEPEST:  # also of mappings that are merged into each other
            raise _too_deep(_line(node))
        self._number += 1 + len(node.value)
        if self._number > MOST_VALUES:
            found = f"more than {MOST_VALUES:,} values, with aliases written out"
            raise UnreadableError(found, "use fewer aliases", _line(node))
        self._open.append(node)
        yield
        self._open.pop()


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


class _Representer(SafeRepresenter):
    """Quotes every string that is not a plain word, so that all YAML readers read it as a string."""

    def represent_str(self, data: str) -> ScalarNode:
        word = SAFE_UNQUOTED.fullmatch(data) and data.lower() not in RESERVED
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if word else '"')

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Representer.add_representer(str, _Representer.represent_str)


def emit(data: Any) -> str:
    """Plain data as block-style YAML, from which `parse` makes equal data."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 2**16
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()
