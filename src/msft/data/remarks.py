"""What a chat template does to the conversations of a sub-dataset that people must know, counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence

from msft.config.problems import shown
from msft.core.plain_words import many
from msft.data.chat_template import ChatTemplate, ChatTemplateError
from msft.data.chats import Rendering
from msft.data.conversations import REASONING, Turn, function_name, is_learned
from msft.data.formats import Sample

BESIDE_TEXT = (
    *("article", "background", "context", "contexts", "dialogue", "document", "documents", "history", "paragraph"),
    *("paragraphs", "passage", "passages", "story", "system", "tools"),
)
"""Columns that belong to a prompt, and that no known format of texts reads."""
THOUGHT = "</think>"
"""Ends the reasoning in a turn's content."""


class Remarks:
    """Counts conversations in which the template leaves something out, and others that deserve a note."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self._conversations = 0
        self._dropped: Counter[str] = Counter()
        self._unmarked = self._lost = 0
        self._unlike: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()

    def add(self, sample: Sample, made: Sequence[Rendering]) -> None:
        """Counts one conversation, rendered as `made`."""
        self._conversations += 1
        self._dropped.update({*self._missing(sample, made)})
        self._unlike.update({rendering.unlike for rendering in made if rendering.unlike})
        learnable = {at for at, turn in enumerate(sample.messages) if is_learned(turn) and at >= sample.given}
        self._lost += bool(learnable - {position for rendering in made for position in rendering.turns})
        if self.template.marks:
            learned = _squeezed("".join(rendering.learned for rendering in made))
            texts = (turn["content"] for turn in sample.messages[sample.given :] if is_learned(turn))
            self._unmarked += any(not _is_in(_answer(text), learned) for text in texts)

    def add_text(self, sample: Sample, read: Container[str]) -> None:
        """Counts one row that is no conversation; `read`: the columns that its texts are made of. A column whose text
        another one repeats is not missed."""
        for name in BESIDE_TEXT:
            value = sample.row.values.get(name)
            if value and name not in read and str(value).strip() not in sample.prompt + sample.completion:
                self._unread[name] += 1

    def notes(self) -> list[str]:
        """The remarks as sentences."""
        return [*self._of_columns(), *self._of_the_template()]

    def _of_columns(self) -> list[str]:
        """The note on columns that are not read; empty if there are none."""
        unread = sorted(self._unread.items())
        if not unread:
            return []
        braced = " and ".join(f"{{{name}}}" for name, _ in unread)
        if len(unread) == 1:
            ((name, count),) = unread
            said, it, end = f"column {name} is filled in {many(count, 'row')}", "it", ""
        else:
            names = [f"{name} (in {many(count, 'row')})" for name, count in unread]
            said, it, end = f"columns {', '.join(names[:-1])} and {names[-1]} are filled", "them", "s"
        return [
            f"the {said} and not used: the model never sees {it}. Fix: give a template with {braced}, or remove the "
            f"column{end}"
        ]

    def _of_the_template(self) -> list[str]:
        of = f"of {self._conversations} conversations"
        notes = [
            f"the chat template drops the {what} of {count} {of}: the model never sees {(it := _pronoun(what))}. Fix: "
            f"give a model.chat_template that writes {it}, or remove {it} from the data"
            for what, count in sorted(self._dropped.items())
        ]
        if self._lost:
            notes.append(
                f"the chat template cannot end with an assistant turn, or writes nothing of it, in {self._lost} {of}: "
                "the turn is not learned. Fix: give a model.chat_template that can"
            )
        if self._unmarked:
            notes.append(
                f"the generation marks of the chat template leave out assistant turns of {self._unmarked} {of}, which "
                "are not learned. Fix: give a model.chat_template that marks them"
            )
        notes += [
            f"the generation prompt of the chat template ends with {shown(end)}, but in {count} {of} an assistant turn "
            "begins without it: it is trained and scored without it. Fix: give a model.chat_template whose turns begin "
            "as its generation prompt does"
            for end, count in sorted(self._unlike.items())
        ]
        if self._conversations and self.template.has_clock:
            notes.append(f"the chat template reads the date, which is {self.template.day} throughout (data.date)")
        return notes

    def _missing(self, sample: Sample, made: Sequence[Rendering]) -> Iterator[str]:
        """What the sample has and none of its renderings."""
        text = _squeezed("".join(rendering.text for rendering in made))
        learned = _squeezed("".join(rendering.learned for rendering in made))
        last = max((at for at, turn in enumerate(sample.messages) if is_learned(turn)), default=-1)
        for position, turn in enumerate(sample.messages[: last + 1]):  # nothing is learned of what follows
            scored = is_learned(turn) and position >= sample.given
            if not _is_in(_answer(turn["content"]) if turn["role"] == "assistant" else turn["content"], text):
                yield "system text" if turn["role"] in ("system", "developer") else f"content of {turn['role']} turns"
            if scored and not all(_is_in(thought, text) for thought in _thoughts(turn)):
                yield "reasoning"
            within = learned if scored and not self.template.marks else text
            if not all(_is_in(function_name(call), within) for call in turn.get("tool_calls", ())):
                yield "tool calls"
        if sample.tools and self._is_same_without_tools(sample):
            yield "tools"
        for name in sample.variables:
            if not self.template.names(name):
                yield f"column or variable {name}"

    def _is_same_without_tools(self, sample: Sample) -> bool:
        try:
            texts = {self.template.render(sample.messages, tools, sample.variables) for tools in (sample.tools, ())}
        except ChatTemplateError:  # a template may fail without tools
            return False
        return len(texts) == 1


def _pronoun(what: str) -> str:
    return "them" if what in ("tools", "tool calls") else "it"


def _answer(content: str) -> str:
    """The content of an assistant turn after its reasoning."""
    return content.rpartition(THOUGHT)[2]


def _thoughts(turn: Turn) -> Iterator[str]:
    """The reasoning of a turn: of its keys, and in its content."""
    yield from (turn[key] for key in REASONING if isinstance(turn.get(key), str))
    yield turn["content"].rpartition(THOUGHT)[0].rpartition("<think>")[2]


def _is_in(part: str, squeezed: str) -> bool:
    """Whether a text contains a part, as it is or as JSON writes it; white space does not count."""
    return _squeezed(part) in squeezed or _squeezed(json.dumps(part, ensure_ascii=False)[1:-1]) in squeezed


def _squeezed(text: str) -> str:
    return "".join(text.split())
