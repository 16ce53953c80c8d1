"""Numbers, types and characters for sentences that people read."""

from __future__ import annotations

import unicodedata


def many(number: float, what: str) -> str:
    """1 step, 12,000 steps, 2.5 epochs."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {what}{'' if number == 1 else 's'}"


def kind_of(value: object) -> str:
    """The type of a value, with its article: a list, an int."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def is_control(character: str) -> bool:
    """Whether it is a control or formatting character, which could move the cursor or reverse a line."""
    return unicodedata.category(character).startswith("C")


def harmless(character: str) -> bool:
    """Whether it may be shown within a text: no control or formatting character but those that join letters or keep
    them apart."""
    return character in "\u200c\u200d" or not is_control(character)
