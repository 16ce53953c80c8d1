"""Templates: `{name}` is replaced by a row's value of that name; `{{` and `}}` are braces. Nothing else is special.

`str.format` is not used, because it lets a configuration read attributes and indices of the values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msft.core.plain_words import kind_of

TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]+)\}|(?P<stray>[{}])")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal texts and names, alternating."""

    parts: tuple[tuple[str, str | None], ...]
    """Literal text, and the name whose value follows it (None at the end)."""
    numbers: bool
    """Whether a value may be a number or a truth value (true, false)."""

    @classmethod
    def parse(cls, text: str, *, numbers: bool = True) -> Template:
        """The parsed `text`. Raises ValueError if a brace has no partner."""
        parts: list[tuple[str, str | None]] = []
        literal, end = "", 0
        for match in TOKEN.finditer(text):
            literal += text[end : match.start()]
            end = match.end()
            if match["stray"]:
                raise ValueError(f"a brace has no partner at character {match.start() + 1}")
            if match["name"] is None:
                literal += match[0][0]
            else:
                parts.append((literal, match["name"]))
                literal = ""
        return cls((*parts, (literal + text[end:], None)), numbers)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.parts if name is not None)

    def renamed(self, names: Mapping[str, str]) -> Template:
        """The same template with its names replaced by `names`; names that are not in `names` stay."""
        parts = tuple((literal, name and names.get(name, name)) for literal, name in self.parts)
        return Template(parts, self.numbers)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text with each name replaced by its value. Raises ValueError for a value that is not text."""
        pieces = []
        for literal, name in self.parts:
            pieces.append(literal)
            if name is not None:
                pieces.append(self._text(name, values.get(name)))
        return "".join(pieces)

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if value is None:
            raise ValueError(f"{name} is missing or null")
        if isinstance(value, bool) and self.numbers:
            return str(value).lower()
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and self.numbers:
            return str(value)
        raise ValueError(f"{name} is {kind_of(value)}, not text")
