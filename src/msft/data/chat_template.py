"""One chat template: renders conversations to text in the form that the template takes, at a fixed date."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from msft.core.errors import in_a_line
from msft.data.conversations import Turn
from msft.data.ends import special_ids

Span: TypeAlias = tuple[int, int]
"""Start and end of a part of a text, in characters."""

MARKS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
HELD_BACK = re.compile(r"\{%[-+]?\s*(?:(end)?(?:macro|call|filter)\b|(end)set\b|set\s[^=%]*%\}|(generation)\b)")
"""Tags of blocks whose text is written elsewhere or later, and of marks."""
TRIVIAL: tuple[Turn, ...] = ({"role": "user", "content": "Qwert"}, {"role": "assistant", "content": "Yuiop"})
"""A conversation that every chat template should render."""
# transformers replaces functions among a template's variables, so the clock is a macro that it calls by the same name.
CLOCK = """\
{%- macro strftime_now(format) -%}
{%- set now = namespace(text=format) -%}
{%- for code, text in msft_clock.items() -%}{%- set now.text = now.text.replace(code, text) -%}{%- endfor -%}
{{- now.text -}}
{%- endmacro %}
"""
CODES = [*(f"%-{code}" for code in "dmHIMSjy"), *(f"%{code}" for code in "aAbBcdfGHIjmMpSuUVwWxXyYzZDFeTRhC"), "%%"]


class ChatTemplateError(ValueError):
    """The chat template cannot render a conversation. `fix` says what to do; the row need not be wrong."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.fix = fix


class ChatTemplateRefusal(ChatTemplateError):  # noqa: N818 - the name says what happened
    """An error that the template itself raised."""


class ChatTemplate:
    """The chat template of a tokenizer. `day`: the date that `strftime_now` shows, at midnight."""

    def __init__(self, tokenizer: Any, name: str, day: datetime.date) -> None:
        self.tokenizer, self.name, self.day = tokenizer, name, day
        own = tokenizer.chat_template
        self._sources = list(own.values()) if isinstance(own, dict) else [own or ""]
        self._nexts: dict[str, str] = {}

    @property
    def has_clock(self) -> bool:
        """Whether what it renders can depend on the date."""
        return any("strftime_now" in source for source in self._sources)

    @property
    def marks(self) -> bool:
        """Whether it marks what is learned by `{% generation %}`."""
        return any(MARKS.search(source) for source in self._sources)

    def names(self, variable: str) -> bool:
        """Whether the template mentions a variable."""
        return any(variable in source for source in self._sources)

    def render(
        self,
        turns: Sequence[Turn],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
        *,
        ask: bool = False,
    ) -> str:
        """The text of the turns; `ask`: with the beginning of the answer. Raises ChatTemplateError.

        Without `ask`, the beginning of a next answer that some templates always write is left out.
        """
        try:
            text = self._text([self._fitted(turn) for turn in turns], tools, variables or {}, ask)
        except Exception as error:  # a template can raise an error of any type
            raise self._refused(error) from None
        return text if ask else text.removesuffix(self._next_answer(tools, variables or {}))

    def marked(
        self, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]
    ) -> tuple[str, list[Span]]:
        """The text of the turns, and the parts of it between `{% generation %}` marks. Raises ChatTemplateError."""
        from transformers.utils import chat_template_utils

        if any(map(_hides_marks, self._sources)):
            found = f"the chat template of {self.name} marks what is generated within a macro or a block that is kept"
            raise ChatTemplateError(f"{found}: where it stands in the text cannot be told", "move the marks out of it")
        render: Any = chat_template_utils.render_jinja_template  # annotated as returning text; it returns a pair
        try:
            chat_template, more = self._prepared(tools)
            texts, spans = render(
                conversations=[[_present(self._fitted(turn)) for turn in turns]],
                tools=list(tools) or None,
                chat_template=chat_template,
                return_assistant_tokens_mask=True,
                **{**self.tokenizer.special_tokens_map, **variables, **more},
            )
            text = str(texts[0]).removesuffix(self._next_answer(tools, variables))
            return text, [(int(start), int(end)) for start, end in spans[0]]
        except Exception as error:
            raise self._refused(error) from None

    def _text(
        self, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], ask: bool
    ) -> str:
        chat_template, more = self._prepared(tools)
        return str(
            self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                tools=list(tools) or None,
                chat_template=chat_template,
                add_generation_prompt=ask,
                tokenize=False,
                **{**variables, **more},
            )
        )

    def _prepared(self, tools: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
        """The Jinja text and its variables for the date."""
        text = self.tokenizer.get_chat_template(None, list(tools) or None)
        if "strftime_now" not in text:
            return text, {}
        now = datetime.datetime.combine(self.day, datetime.time())
        return CLOCK + text, {"msft_clock": {code: now.strftime(code) for code in CODES}}

    def _refused(self, error: Exception) -> ChatTemplateRefusal:
        found = f"the chat template of {self.name} refuses the turns ({in_a_line(error)})"
        if not self._renders_anything:
            return ChatTemplateRefusal(found, "give another model.chat_template: it renders no conversation at all")
        return ChatTemplateRefusal(found, "give a model.chat_template that takes such turns, or change the turns")

    @cached_property
    def _renders_anything(self) -> bool:
        return self._tried(TRIVIAL) is not None

    def ends(self, text: str) -> bool:
        """Whether a text ends with a special token, which blanks may follow."""
        return text.rstrip().endswith(self._special)

    @cached_property
    def _special(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.convert_ids_to_tokens(sorted(special_ids(self.tokenizer))))

    @cached_property
    def always_asks(self) -> str:
        """The beginning of a next answer that the template writes after every conversation, asked to or not; empty for
        most templates.

        It begins after the first special token that ends the last turn. Without one, it is all that follows the turn's
        own text: where the turn ends and the next one begins cannot be told.
        """
        return self._found_always((), {})

    def _next_answer(self, tools: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """`always_asks` for these tools and variables, on which it may depend."""
        if not self.always_asks or not (tools or variables):
            return self.always_asks
        key = json.dumps([tools, variables], sort_keys=True, default=str)
        if key not in self._nexts:
            self._nexts[key] = self._found_always(tools, variables)
        return self._nexts[key]

    def _found_always(self, tools: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        asks, says = map(self._fitted, TRIVIAL)
        tried = ([asks], [asks, says], [asks, says, asks])
        asked, done, more = (self._tried(turns, tools, variables) for turns in tried)
        if asked is None or done is None or more is None or asked != self._tried([asks], tools, variables, ask=True):
            return ""
        header = done[len(beginning([done, more])) :]
        before, found, after = done.rpartition(TRIVIAL[1]["content"])
        if not header.strip() or not found or not asked.startswith(before) or not asked.endswith(header):
            return ""
        found_at = ((after.find(token), len(token)) for token in self._special)
        ends = [(at, size) for at, size in found_at if 0 <= at < len(after) - len(header)]
        return after[sum(min(ends, default=(0, 0))) :]

    # Templates differ in the form of a turn. Each form below is chosen once, by trial on an example.

    def _fitted(self, turn: Turn) -> Turn:
        """The turn in the form that this template takes."""
        if turn["role"] == "developer" and not self._knows_developer:
            turn = {**turn, "role": "system"}
        if calls := turn.get("tool_calls"):
            if not turn["content"]:
                turn = {**turn, "content": self._no_content}
            if self._arguments_are_text:
                turn = {**turn, "tool_calls": [_with_text(call) for call in calls]}
        if isinstance(turn["content"], str) and self._wants_parts:
            turn = {**turn, "content": [{"type": "text", "text": turn["content"]}]}
        return turn

    @cached_property
    def _knows_developer(self) -> bool:
        text = self._tried([{"role": "developer", "content": "Asdfg"}, *TRIVIAL])
        return text is not None and "Asdfg" in text

    @cached_property
    def _wants_parts(self) -> bool:
        plain = self._tried(TRIVIAL)
        if plain is not None and "Qwert" in plain and "Yuiop" in plain:
            return False
        parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TRIVIAL]
        text = self._tried(parts)
        return text is not None and "Qwert" in text and "Yuiop" in text

    @cached_property
    def _arguments_are_text(self) -> bool:
        """An object is right, unless the template fails on it or writes it as Python does."""
        for blank in (None, "", "Look."):
            as_object = self._tried(_calling({"town": "Paris"}, blank))
            if as_object is not None and "{'town'" not in as_object and "Paris" in as_object:
                return False
        for blank in (None, "", "Look."):
            as_text = self._tried(_calling('{"town": "Paris"}', blank))
            if as_text is not None and '\\"town' not in as_text and "Paris" in as_text:
                return True
        return False

    @cached_property
    def _no_content(self) -> str | None:
        """The content of a turn that only calls a tool: null, as OpenAI has it, or else empty."""
        arguments = '{"town": "Paris"}' if self._arguments_are_text else {"town": "Paris"}
        text = self._tried(_calling(arguments, None))
        return None if text is not None and "None" not in text and "weather_of" in text else ""

    def _tried(
        self,
        turns: Sequence[Turn],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
        *,
        ask: bool = False,
    ) -> str | None:
        """The rendering of turns in the very form given; None if the template fails."""
        try:
            return self._text(turns, tools, variables or {}, ask)
        except Exception:  # a template can raise an error of any type
            return None


def beginning(texts: Sequence[str]) -> str:
    """The longest text with which all of the texts begin."""
    first, last = min(texts), max(texts)  # in the order of the alphabet, where these two differ most
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:same]


def _hides_marks(source: str) -> bool:
    """Whether a generation mark stands in a macro, or another block whose text is not written where it stands."""
    depth = 0
    for tag in HELD_BACK.finditer(source):
        if tag[3] and depth:
            return True
        depth += 0 if tag[3] else -1 if tag[1] or tag[2] else 1
    return False


def _calling(arguments: Any, content: str | None) -> list[Turn]:
    call = {"type": "function", "id": "call00001", "function": {"name": "weather_of", "arguments": arguments}}
    answer = {"role": "tool", "content": "Rain.", "name": "weather_of", "tool_call_id": "call00001"}
    asks, says = TRIVIAL
    return [asks, _present({"role": "assistant", "content": content, "tool_calls": [call]}), answer, says]


def _present(turn: Turn) -> dict[str, Any]:
    """The turn without null values, as `apply_chat_template` passes it on."""
    return {key: value for key, value in turn.items() if value is not None}


def _with_text(call: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = call["function"].get("arguments")
    if isinstance(arguments, str):
        return call
    return {**call, "function": {**call["function"], "arguments": json.dumps(arguments, ensure_ascii=False)}}
