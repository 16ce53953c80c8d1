"""Converts rows to samples by a known format (design 4), which `detect` finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from msft.config.columns import AnswerIs, FormatName
from msft.data.choices import DERIVED, Spread, choices_of, derived, without_doubles
from msft.data.conversations import VARIABLES, conversation, tools_of, turns_of, variables_of
from msft.data.examples import Measure
from msft.data.rows import Row
from msft.data.templates import Template


@dataclass(frozen=True, slots=True)
class Kind:
    """A format that is recognised by its roles. Its templates contain names of roles."""

    name: FormatName
    roles: tuple[str, ...]
    prompt: str = ""
    completion: str = ""

    @property
    def conversation(self) -> bool:
        """Whether a row is a conversation."""
        return self.name in CONVERSATIONS or self is TURNS


QUESTION = Kind("choices", ("question", "choices", "answer"), "Question: {question}\nAnswer:", " {answer_text}")
LETTERED = Kind("choices", QUESTION.roles, "Question: {question}\n{choices_text}Answer:", " {answer_letter}")
INSTRUCTION = Kind("alpaca", ("instruction", "output"), "{instruction}\n\n", "{output}")
TURNS = Kind("prompt_completion", ("prompt", "completion"))
"""A prompt and a completion that are lists of turns, as TRL's conversational format has them."""
TEXT = Kind("text", ("text",), "", "{text}")
KINDS = (  # the first of which all roles exist is used
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
BESIDE_TURNS = ("system", "tools")
"""Roles of columns beside the turns: a first turn, and the tools that the model may call."""
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
    """`choice` scorer: for each choice, the text after the prompt."""
    answer: int = 0
    """Position of the correct option."""
    choices: int = 0
    """Number of choices, if a template needs them."""
    stated: str | None = None
    """`generate` scorer: the correct answer, if the row has it in a separate column."""
    given: int = 0
    """Number of turns at the start that are neither learned nor scored."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Conversations: JSON schemas of the tools that the chat template presents to the model."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Conversations: further variables of the chat template."""

    @property
    def question(self) -> str:
        """The text that identifies the example: the prompt, the turns before the last answer, or the plain text."""
        if not self.messages:
            return self.prompt or self.completion
        learned = max(at for at, turn in enumerate(self.messages) if turn["role"] == "assistant")
        return "\n".join(str(turn["content"]) for turn in self.messages[: learned or 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the rows of one data set become samples. `detect` makes it."""

    roles: Mapping[str, str]
    """Role -> column; of choices in several columns, the first."""
    measure: Measure
    kind: Kind | None = None
    """The known format of the rows; None if the configuration has a template instead."""
    prompt: Template
    completion: Template
    without_input: Template | None = None
    """The prompt of rows whose `input` is blank."""
    option: Template | None = None
    """`choice` scorer: the text of a choice, rendered as if it were the answer."""
    stated: Template | None = None
    """`generate` scorer: the correct answer, if `columns` names its column."""
    spread: Spread | None = None
    """The columns of the choices, if there are several."""
    answer_is: AnswerIs | None = None
    """What an answer without labels is, if configured."""

    def sample(self, row: Row) -> Sample:
        """The row as text. Raises ValueError, which says what is wrong without showing the content."""
        self._check_kind(row)
        if self.conversation:
            return self._conversation(row)
        values = dict(row.values)
        texts: tuple[str, ...] = ()
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
            choices=len(texts),
            stated=self._stated(values),
        )

    def _conversation(self, row: Row) -> Sample:
        """The turns of one column, or those of the prompt and, learned alone, those of the completion."""
        assert self.kind is not None
        columns = [self.roles[role] for role in self.kind.roles]
        parts = [turns_of(row.values.get(column), column) for column in columns]
        given = len(parts[0]) if len(parts) > 1 else 0
        system = row.values.get(self.roles.get("system", "system"))
        own = tuple(turn for part in parts for turn in part)
        turns = conversation(own, columns[-1], system, given)
        return Sample(
            row=row,
            messages=turns,
            given=given + len(turns) - len(own) if given else 0,
            tools=tools_of(row.values.get(self.roles.get("tools", "tools"))),
            variables=variables_of(row.values),
            stated=self._stated(row.values),
        )

    def _choices(self, values: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
        if self.spread is not None:
            texts, answer = self.spread.choices_of(values, self.answer_is)
        else:
            texts, answer = choices_of(
                values.get(self.roles["choices"]), values.get(self.roles["answer"]), self.answer_is
            )
        used = (self.prompt, self.completion, self.option, self.stated)
        lettered = any("answer_letter" in template.names for template in used if template is not None)
        return without_doubles(texts, answer, lettered=lettered)

    def _stated(self, values: Mapping[str, Any]) -> str | None:
        return None if self.stated is None else self.stated.render(values)

    @property
    def conversation(self) -> bool:
        """Whether a row is a conversation."""
        return self.kind is not None and self.kind.conversation

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, in the order of their roles."""
        if self.conversation and self.kind is not None:
            roles = (*self.kind.roles, *(role for role in BESIDE_TURNS if role in self.roles))
            return (*(self.roles[role] for role in roles), *VARIABLES)
        templates = (self.prompt, self.completion, self.option, self.without_input, self.stated)
        names = {name for template in templates if template is not None for name in template.names}
        choices = self.spread.columns if self.spread else (self.roles.get("choices"),)
        if names & set(DERIVED):
            names |= {*choices, self.roles["answer"]}
        roles = (*(self.kind.roles if self.kind else ()), *self.roles)
        columns = chain.from_iterable(choices if role == "choices" else (self.roles[role],) for role in roles)
        ordered = dict.fromkeys([*columns, *sorted(names)])
        return tuple(name for name in ordered if name in names and name not in DERIVED)

    def _check_kind(self, row: Row) -> None:
        """Raises ValueError for a row that has another format than the data set."""
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
