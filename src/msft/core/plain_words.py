"""Numbers and types as words, for sentences that people read."""

from __future__ import annotations


def many(number: float, what: str) -> str:
    """1 step, 12,000 steps, 2.5 epochs."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {what}{'' if number == 1 else 's'}"


def kind_of(value: object) -> str:
    """The type of a value, with its article: a list, an int."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
