"""Conversations in the two forms that data sets use: `role` + `content`, and ShareGPT's `from` + `value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msft.config.problems import shown

ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "tool": "tool",
}  # fmt: skip
"""Names of roles in data sets -> names in chat templates."""


def turns_of(messages: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """The turns with `role` and `content`. Raises ValueError, saying what is wrong with which turn.

    TRL's `maybe_convert_to_chatml` is not used because it renames the keys, but not the roles (human, gpt).
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"{column} is not a list of turns")
    if not messages:
        raise ValueError(f"{column} is empty")
    turns = tuple(_turn(turn, f"turn {number} of {column}") for number, turn in enumerate(messages, 1))
    if not any(turn["role"] == "assistant" for turn in turns):
        raise ValueError(f"{column} has no assistant turn to learn")
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise ValueError(f"{column} has a system turn that is not the first")
    return turns


def _turn(turn: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{place} is a {type(turn).__name__}, not an object")
    keys = ("from", "value") if "from" in turn else ("role", "content")
    for key in keys:
        if not isinstance(turn.get(key), str):
            raise ValueError(f"{place} has no {key}, or it is not text")
    name, content = (turn[key] for key in keys)
    if name not in ROLES:
        raise ValueError(f"{place} has the unknown role {shown(name)}, which is not one of {', '.join(ROLES)}")
    if ROLES[name] == "assistant" and not content.strip():
        raise ValueError(f"{place} is an empty assistant turn")
    # Arrow gives every turn the keys of all other turns, with null values.
    more = {key: value for key, value in turn.items() if value is not None and key not in keys}
    return {"role": ROLES[name], "content": content, **more}
