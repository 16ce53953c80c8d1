"""Conversations rendered by published chat templates, as text with what is learned in [[ ]].

`PYTHONPATH=src python tests/cases/published_templates.py` writes golden_chats.txt anew: read
every line of it that changed.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

from small_models import SPECIAL, tokenizer_of

from msft.data.chat_template import ChatTemplate
from msft.data.chats import renderings
from msft.data.conversations import conversation, turns_of
from msft.data.formats import Sample
from msft.data.rows import Row

TOKENS = re.compile(r"<[|｜][^<>|｜ ]+[|｜]>|<\w+_of_\w+>|\[/?[A-Z_]+\]|\[gMASK\]|<sop>")
"""The special tokens in a template's text."""
FOLDER = Path(__file__).parent / "templates"
GOLDEN = Path(__file__).parent / "golden_chats.txt"
NAMES = sorted(file.stem for file in FOLDER.glob("*.jinja"))
DAY = datetime.date(2026, 1, 31)
LONG = 240
"""Characters of a text that is not learned, above which only its beginning and its end are shown."""

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = {"type": "function", "id": "abc123def", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CHATS: dict[str, tuple[list[dict[str, Any]], tuple[dict[str, Any], ...]]] = {
    "one turn": ([turn("user", "Ask 1"), turn("assistant", "Say 1")], ()),
    "several turns": (
        [turn("user", "Ask 1"), turn("assistant", "Say 1"), turn("user", "Ask 2"), turn("assistant", "Say 2")],
        (),
    ),
    "reasoning": (
        [
            turn("user", "Ask 1"),
            turn("assistant", "Say 1", reasoning_content="Think 1"),
            turn("user", "Ask 2"),
            turn("assistant", "Say 2", reasoning_content="Think 2"),
        ],
        (),
    ),
    "system": ([turn("system", "Be short."), turn("user", "Ask 1"), turn("assistant", "Say 1")], ()),
    "tools": (
        [
            turn("user", "Rain?"),
            turn("assistant", "", tool_calls=[CALL]),
            turn("tool", "wet", name="weather", tool_call_id="abc123def"),
            turn("assistant", "Yes."),
        ],
        (TOOL,),
    ),
    "assistant first": ([turn("assistant", "Say 0"), turn("user", "Ask 1"), turn("assistant", "Say 1")], ()),
}


def words_of(name: str, eos: str = "</s>") -> Any:
    """A small tokenizer with a published template and its special tokens."""
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    more = tuple(token for token in dict.fromkeys(TOKENS.findall(text)) if token not in SPECIAL)
    return tokenizer_of(eos=eos, template=text, more_special=more)


def template(name: str, day: datetime.date = DAY) -> ChatTemplate:
    """A published template."""
    return ChatTemplate(words_of(name), name, day)


def sample(turns: list[dict[str, Any]], tools: tuple[dict[str, Any], ...] = ()) -> Sample:
    return Sample(row=Row({}, "f", 1, 1), messages=conversation(turns_of(turns, "messages"), "messages"), tools=tools)


def shown(name: str) -> str:
    """All conversations as one template renders them."""
    made = template(name)
    lines = []
    for title, (turns, tools) in CHATS.items():
        lines.append(f"==== {name}: {title}")
        try:
            found = renderings(made, sample(turns, tools))
        except ValueError as error:
            lines.append(f"refused: {error}")
            continue
        for number, rendering in enumerate(found, 1):
            positions = ", ".join(str(position + 1) for position in rendering.turns)
            unlike = f", asked with {rendering.unlike!r}" if rendering.unlike else ""
            lines.append(f"---- example {number} of {len(found)}, learns turn {positions}{unlike}")
            lines.append("".join(f"[[{text}]]" if learned else _short(text) for text, learned in rendering.pieces))
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:60]} (...) {text[-140:]}"


if __name__ == "__main__":
    GOLDEN.write_text("".join(shown(name) for name in NAMES), encoding="utf-8")
