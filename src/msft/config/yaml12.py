"""Reads and writes YAML 1.2: plain data only, with the line of every key.

It reads the parser's events instead of using a constructor: so `no` is a string and `1e-5` a number, duplicate keys are
detected, tags, anchors and aliases are refused, and a file cannot construct objects.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from msft.core.wire import KeyPath

DEEPEST = 20
"""Maximum levels of nesting: more than any configuration needs, too few to exhaust the stack."""

INTEGER = re.compile(r"[-+]?[0-9]{1,30}|0x[0-9a-fA-F]{1,16}|0o[0-7]{1,16}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
NAMED: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
"""Words that this or an older version of YAML does not read as strings."""
SAFE_UNQUOTED = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")


class UnreadableError(Exception):
    """The text is not valid YAML, or uses features of YAML that a configuration may not use."""

    def __init__(self, found: str, mend: str, line: int | None) -> None:
        super().__init__(found)
        self.found, self.mend, self.line = found, mend, line


@dataclass(frozen=True)
class Document:
    """Plain data, and the 1-based line of each key and list item."""

    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


def parse(text: str) -> Document:
    """The one document in `text`; empty text gives None. Raises UnreadableError."""
    lines: dict[KeyPath, int] = {}
    data = None
    try:
        events = iter(YAML(typ="safe", pure=True).parse(text))
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if lines or data is not None:
                    raise UnreadableError("a second document begins", "keep one document in the file", _line(event))
                data = _node(next(events), events, (), lines)
            else:
                assert isinstance(event, StreamStartEvent | DocumentEndEvent | StreamEndEvent)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = "not valid YAML: " + " ".join(part for part in (error.context, error.problem) if part)
        mend = "indent with spaces, never with tabs" if "\\t" in found else "fix the YAML"
        raise UnreadableError(found, mend, mark.line + 1 if mark else None) from None
    except (YAMLError, ValueError) as error:
        found = f"not valid YAML: {str(error).splitlines()[0]}"
        raise UnreadableError(found, "remove the character or fix the YAML", None) from None
    return Document(data, lines)


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _node(event: Any, events: Iterator[Event], path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """The value that begins with `event`; takes the rest of its events from `events`."""
    if isinstance(event, AliasEvent) or event.anchor is not None:
        found = f"found the {'alias *' if isinstance(event, AliasEvent) else 'anchor &'}{event.anchor}"
        raise UnreadableError(found, "write the value in full: anchors and aliases are not supported", _line(event))
    if event.tag is not None:
        raise UnreadableError(f"found the tag {event.tag}", "remove it: tags are not supported", _line(event))
    if len(path) > DEEPEST:
        raise UnreadableError(f"more than {DEEPEST} levels of nesting", "nest less deeply", _line(event))
    if isinstance(event, MappingStartEvent):
        return _mapping(events, path, lines)
    if isinstance(event, SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            lines[*path, len(items)] = _line(event)
            items.append(_node(event, events, (*path, len(items)), lines))
        return items
    assert isinstance(event, ScalarEvent)
    return resolved(event.value) if event.implicit[0] else event.value


def _mapping(events: Iterator[Event], path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    while not isinstance(event := next(events), MappingEndEvent):
        if not isinstance(event, ScalarEvent):
            raise UnreadableError("found a key that is not a plain name", "use a plain name as key", _line(event))
        _node(event, events, path, lines)  # a key may have no tag or anchor either
        key = event.value
        if key in mapping:
            found = f"the key {key!r} appears twice (first on line {lines[*path, key]})"
            raise UnreadableError(found, "keep one of them", _line(event))
        lines[*path, key] = _line(event)
        mapping[key] = _node(next(events), events, (*path, key), lines)
    return mapping


def resolved(text: str) -> Any:
    """The value of an unquoted scalar in the core schema of YAML 1.2."""
    if text in NAMED:
        return NAMED[text]
    if INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


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
