"""From rows to samples, by a format that is known (design 4); `detect` finds which it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msft.config.columns import FormatName
from msft.data.choices import DERIVED, Spread, choices_of, derived
from msft.data.conversations import turns_of
from msft.data.examples import Measure
from msft.data.rows import Row
from msft.data.templates import Template


@dataclass(frozen=True, slots=True)
class Kind:
    """A format that is known by its roles. Its templates name roles."""

    name: FormatName
    roles: tuple[str, ...]
    prompt: str = ""
    completion: str = ""


QUESTION = Kind("choices", ("question", "choices", "answer"), "Question: {question}\nAnswer:", " {answer_text}")
LETTERED = Kind("choices", QUESTION.roles, "Question: {question}\n{choices_text}Answer:", " {answer_letter}")
INSTRUCTION = Kind("alpaca", ("instruction", "output"), "{instruction}\n\n", "{output}")
TEXT = Kind("text", ("text",), "", "{text}")
KINDS = (  # the first whose roles are all there is taken
    Kind("prompt_completion", ("prompt", "completion"), "{prompt}", "{completion}"),
    Kind("messages", ("messages",)),
    Kind("sharegpt", ("conversations",)),
    Kind("alpaca", ("instruction", "input", "output"), "{instruction}\n\n{input}\n\n", "{output}"),
    INSTRUCTION,
    QUESTION,
    Kind("choices", ("prompt", "choices", "answer"), "{prompt}", " {answer_text}"),
    Kind("question_answer", ("question", "answer"), "{question}\n", "{answer}"),
    TEXT,
)
CONVERSATIONS = ("messages", "sharegpt")
OPTIONAL = ("input",)
"""Roles that may be null in some rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example as text: a prompt with its completion, or a conversation."""

    row: Row
    prompt: str = ""
    completion: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    options: tuple[str, ...] = ()
    """`choice` scorer: the text after the prompt that stands for each choice."""
    answer: int = 0
    """Position of the right option."""
    stated: str | None = None
    """`generate` scorer: the right answer, where the row has it in a column of its own."""
    given: int = 0
    """Number of turns, from the first, of which nothing is learned or scored."""

    @property
    def question(self) -> str:
        """What identifies the example: the prompt, the turns before the last of the assistant, or the plain text."""
        if not self.messages:
            return self.prompt or self.completion
        learned = max(at for at, turn in enumerate(self.messages) if turn["role"] == "assistant")
        return "\n".join(str(turn["content"]) for turn in self.messages[: learned or 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the rows of one data set become samples. `detect` makes it."""

    roles: Mapping[str, str]
    """Role to column; of choices that are spread over several columns, the first."""
    measure: Measure
    kind: Kind | None = None
    """The known format that the rows have; None where a template says it all."""
    prompt: Template
    completion: Template
    without_input: Template | None = None
    """The prompt of rows whose `input` is blank."""
    option: Template | None = None
    """`choice` scorer: what stands for a choice, as if it were the answer."""
    stated: Template | None = None
    """`generate` scorer: the right answer, where `columns` names its column."""
    spread: Spread | None = None
    """Where the choices lie, if not in one column."""

    def sample(self, row: Row) -> Sample:
        """The row as text. Raises ValueError, saying what is wrong with it but not what is in it."""
        self._check_kind(row)
        if self.conversation:
            column = self.roles[self.kind.roles[0]] if self.kind else ""
            turns = turns_of(row.values.get(column), column)
            return Sample(row=row, messages=turns, stated=self._stated(row.values))
        values = dict(row.values)
        options: tuple[str, ...] = ()
        answer = 0
        if self._has_choices:
            texts, answer = self._choices(row.values)
            values |= derived(texts, answer)
            if self.option is not None:
                as_answers = (derived(texts, number) for number in range(len(texts)))
                options = tuple(self.option.render(values | as_answer) for as_answer in as_answers)
        prompt, completion = self._texts(values)
        return Sample(
            row=row,
            prompt=prompt,
            completion=completion,
            options=options,
            answer=answer,
            stated=self._stated(values),
        )

    def _choices(self, values: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
        if self.spread is not None:
            return self.spread.choices_of(values)
        return choices_of(values.get(self.roles["choices"]), values.get(self.roles["answer"]))

    def _stated(self, values: Mapping[str, Any]) -> str | None:
        return None if self.stated is None else self.stated.render(values)

    @property
    def conversation(self) -> bool:
        return self.kind is not None and self.kind.name in CONVERSATIONS

    def _check_kind(self, row: Row) -> None:
        """Raises ValueError for a row of another format than the others."""
        if self.kind is None:
            return
        lacking = [role for role in self.kind.roles if row.values.get(self.roles[role]) is None]
        if not set(lacking) - set(OPTIONAL):
            return
        for other in KINDS:
            if other.name != self.kind.name and all(row.values.get(role) is not None for role in other.roles):
                mixed = f"the row is {' + '.join(other.roles)}, but the data set is {' + '.join(self.kind.roles)}"
                raise ValueError(f"{mixed}: one data set has one format")

    @property
    def _has_choices(self) -> bool:
        stated = self.stated.names if self.stated else ()
        return self.option is not None or bool(set(DERIVED) & {*self.prompt.names, *self.completion.names, *stated})

    def _texts(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """Prompt and completion."""
        prompt = self.prompt
        if self.without_input is not None and not str(values.get(self.roles["input"]) or "").strip():
            prompt = self.without_input
        texts = prompt.render(values), self.completion.render(values)
        for what, text in zip(("prompt", "completion"), texts, strict=True):
            if not text.strip() and not (what == "prompt" and self.kind is TEXT):
                raise ValueError(f"the {what} is empty")
        return texts
