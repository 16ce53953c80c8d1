"""Conversations as data sets write them -> turns as chat templates read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from msft.config.problems import shown
from msft.core.plain_words import kind_of

Turn: TypeAlias = Mapping[str, Any]
"""`role`, `content` (text), and further keys such as `tool_calls` and `reasoning_content`. No value is null.

`weight` is 0 where the data say that an assistant turn is not learned.
"""

ROLES = {
    "system": "system", "developer": "developer", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "function_call": "assistant", "tool": "tool", "observation": "tool",
    "environment": "tool",
}  # fmt: skip
"""Names of roles in data sets -> names in chat templates."""
OPENERS = ("system", "developer")
"""Roles that only the first turns have."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn that hold what the model thinks before it answers."""
VARIABLES = ("documents", "enable_thinking", "chat_template_kwargs")
"""Columns beside the turns that are passed to the chat template as they are."""

LEARNED = ("weight", "train", "loss")
"""Keys of a turn that say whether it is learned: 1 or true, 0 or false."""

RESERVED = frozenset({
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "conversations", "messages",
    "max_length", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "sanitize_control_tokens",
    "tokenize", "tokenizer_kwargs", "tools", "truncation",
})  # fmt: skip
"""Names that cannot be variables of a chat template, because `apply_chat_template` uses them."""


def turns_of(messages: Any, column: str) -> tuple[Turn, ...]:
    """The turns with `role` and `content`. Raises ValueError, saying what is wrong with which turn.

    TRL's `maybe_convert_to_chatml` is not used because it renames the keys, but not the roles (human, gpt).
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        if messages is None:
            raise ValueError(f"{column} is missing")
        what = kind_of(messages)
        if isinstance(messages, str):
            what = "JSON written as text" if isinstance(_parsed(messages), list | dict) else "text"
        raise ValueError(f"{column} is {what}, not a list of turns")
    if not messages:
        raise ValueError(f"{column} is empty")
    return tuple(_turn(turn, f"turn {number} of {column}") for number, turn in enumerate(messages, 1))


def conversation(turns: tuple[Turn, ...], column: str, system: Any = None, given: int = 0) -> tuple[Turn, ...]:
    """The turns, checked as a whole, after the text of a `system` column. Raises ValueError.

    `given`: number of turns at the start of which nothing is learned.
    """
    if not any(map(is_learned, turns[given:])):
        raise ValueError(f"{column} has no assistant turn to learn")
    if system is not None and not isinstance(system, str):
        raise ValueError(f"the column system is {kind_of(system)}, not text")
    if system and system.strip():
        own = [turn["content"] for turn in turns if turn["role"] in OPENERS]
        if own and own != [system]:
            raise ValueError(f"the column system and a system turn of {column} differ")
        turns = turns if own else ({"role": "system", "content": system}, *turns)
    names = [turn["role"] for turn in turns]
    opening = next(number for number, name in enumerate([*names, ""]) if name not in OPENERS)
    if opening > len({*names[:opening]}) or any(name in OPENERS for name in names[opening:]):
        raise ValueError(f"{column} has a system turn that is not the first")
    return turns


def is_learned(turn: Turn) -> bool:
    """Whether a turn is the model's, and to be learned."""
    return bool(turn["role"] == "assistant" and turn.get("weight") != 0)


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The JSON schemas of a `tools` column, which holds a list or its JSON text. Raises ValueError."""
    value = _parsed(value) if isinstance(value, str) else without_nulls(value)
    if value is None or value == "":
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError("the column tools is not a list of JSON schemas")
    tools = []
    for number, tool in enumerate(value, 1):
        schema = _parsed(tool) if isinstance(tool, str) else tool
        if not isinstance(schema, dict):
            raise ValueError(f"tool {number} of the column tools is not a JSON schema")
        wrapped = schema if "function" in schema or "name" not in schema else {"type": "function", "function": schema}
        if "function" in wrapped and not isinstance(_name(wrapped), str):
            raise ValueError(f"tool {number} of the column tools has a function without a name")
        tools.append(wrapped)
    return tuple(tools)


def variables_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The variables for the chat template in the columns `VARIABLES` of a row. Raises ValueError."""
    found = {name: without_nulls(values[name]) for name in VARIABLES if values.get(name) is not None}
    more = found.pop("chat_template_kwargs", {})
    more = _parsed(more) if isinstance(more, str) else more
    if not isinstance(more, dict) or not all(isinstance(name, str) and name.isidentifier() for name in more):
        raise ValueError("the column chat_template_kwargs is not an object of names and values")
    if taken := sorted(RESERVED & {*more}):
        raise ValueError(f"the column chat_template_kwargs sets {taken[0]}, which has its own place")
    documents = found.get("documents", [])
    if not isinstance(documents, list) or not all(isinstance(document, dict) for document in documents):
        raise ValueError("the column documents is not a list of objects")
    return found | more


def without_nulls(value: Any) -> Any:
    """The value without the keys of objects whose value is null, at any depth: Arrow gives every object of a column
    the keys of all others, with null values."""
    if isinstance(value, Mapping):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nulls(below) for below in value]
    return value


def function_name(call: Mapping[str, Any]) -> str:
    """The name of the function that a tool describes or a turn calls; empty if it has none."""
    name = _name(call)
    return name if isinstance(name, str) else ""


def _name(of: Mapping[str, Any]) -> Any:
    inner = of.get("function")
    return inner.get("name") if isinstance(inner, Mapping) else of.get("name")


def _turn(turn: Any, place: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{place} is {kind_of(turn)}, not an object")
    keys = ("from", "value") if turn.get("from") is not None else ("role", "content")
    name = turn.get(keys[0])
    if not isinstance(name, str):
        raise ValueError(f"{place} has no {keys[0]}, or it is not text")
    if name not in ROLES:
        raise ValueError(f"{place} has the unknown role {shown(name)}, which is not one of {', '.join(ROLES)}")
    more = {key: without_nulls(value) for key, value in turn.items() if value is not None and key not in keys}
    said = {key: _truth(more.pop(key), f"{key} of {place}") for key in LEARNED if key in more}
    if ROLES[name] == "assistant" and not all(said.values()):
        more["weight"] = 0
    elif ROLES[name] != "assistant" and said.get("train"):
        raise ValueError(f"{place} has train: true, but only assistant turns are learned")
    calls = _calls(more.pop("tool_calls", None), place)
    content = turn.get(keys[1])
    if name == "function_call":
        calls, content = [*calls, *_written_calls(content, place)], ""
    if calls:
        more["tool_calls"] = calls
    thinks = any(isinstance(more.get(key), str) and more[key].strip() for key in REASONING)
    text = _text(content, f"{place} has no {keys[1]}, or it is not text", may_lack=bool(calls) or thinks)
    if ROLES[name] == "assistant" and not (text.strip() or calls or thinks):
        raise ValueError(f"{place} is an empty assistant turn")
    return {"role": ROLES[name], "content": text, **more}


def _truth(value: Any, place: str) -> bool:
    if value not in (0, 1):
        raise ValueError(f"{place} is {shown(value)}: only 0 or false (not learned) and 1 or true (learned) are known")
    return bool(value)


def _text(content: Any, missing: str, *, may_lack: bool) -> str:
    """The content as text: parts of type `text` are joined. Raises ValueError with the message `missing`."""
    if content is None and may_lack:
        return ""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes) and content:
        texts = []
        for part in content:
            kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
            if kind not in ("text", "input_text", "output_text"):
                raise ValueError(f"{missing}: it has a part of type {shown(kind)}, and only text can be learned")
            if not isinstance(part.get("text"), str):
                raise ValueError(f"{missing}: it has a part of type text without text")
            texts.append(part["text"])
        return "".join(texts)
    if not isinstance(content, str):
        raise ValueError(missing)
    return content


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """The tool calls in OpenAI's form; arguments that are the JSON text of an object become that object."""
    calls = _parsed(calls) if isinstance(calls, str) else calls
    if calls is None:
        return []
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise ValueError(f"{place} has tool_calls that are not a list")
    made = []
    for call in calls:
        if not isinstance(call, Mapping) or not function_name(call):
            raise ValueError(f"{place} has a tool call without the name of a function")
        if isinstance(call.get("function"), Mapping):
            outer, function = dict(call), dict(call["function"])
        else:  # the function itself, without the object around it
            outer = {key: call[key] for key in ("id", "type") if key in call}
            function = {key: value for key, value in call.items() if key not in outer}
        arguments = function.get("arguments", {})
        parsed = _parsed(arguments) if isinstance(arguments, str) else arguments
        function["arguments"] = parsed if isinstance(parsed, Mapping) else arguments
        made.append({"type": "function", **outer, "function": function})
    return made


def _written_calls(content: Any, place: str) -> list[dict[str, Any]]:
    """The calls of a ShareGPT turn from `function_call`, which holds one as JSON text, or a list of them."""
    calls = _parsed(content) if isinstance(content, str) else content
    if not isinstance(calls, Mapping | list):
        raise ValueError(f"{place} from function_call does not hold a function's name and arguments as JSON")
    return _calls([calls] if isinstance(calls, Mapping) else calls, place)


def _parsed(text: str) -> Any:
    """The JSON value of a text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
