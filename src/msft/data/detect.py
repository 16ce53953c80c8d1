"""Finds the roles of a data set's columns, and how its rows become text (design 4).

An explicit template overrides `columns`, and `columns` overrides the rows' own column names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msft.config.dataset_section import DatasetConfig
from msft.config.problems import one_of, shown
from msft.core.errors import DataError, complaint
from msft.data.choices import DERIVED, Spread
from msft.data.examples import Measure
from msft.data.formats import (
    BESIDE_TURNS,
    INSTRUCTION,
    KINDS,
    LETTERED,
    QUESTION,
    TEXT,
    TURNS,
    Format,
    Kind,
)
from msft.data.rows import Row, Survey, survey
from msft.data.templates import Template

LABELS = ("label", "labels", "target", "class", "completion", "output", "response", "answer")
"""Columns which suggest that `text` is not all that is to be learned."""
OF_THE_HUB = {"question_stem": "question", "answerKey": "answer"}
"""Columns of multiple choice on the hub (ARC, OpenBookQA, CommonsenseQA) -> their roles beside `choices`."""
BLANK_LINE = "\n\n"
"""What separates shots, where they are texts."""
EXPECTED = (
    "prompt + completion, messages, conversations, instruction (+ input) + output, question + choices + answer, "
    "question + answer, text"
)


def detect(dataset: DatasetConfig, rows: Sequence[Row]) -> Format:
    """The format of a data set, decided once on its training rows. Raises DataError."""
    return _Detector(dataset, rows).format()


class _Detector:
    def __init__(self, dataset: DatasetConfig, rows: Sequence[Row]) -> None:
        self.dataset, self.rows = dataset, rows
        self.survey: Survey = survey(rows)
        self.columns = self.survey.columns
        self.named, self.choices = self._configured()
        self.roles = self._roles()
        filled = self.survey.filled
        answered = [filled.get(self.roles.get(role, role)) == self.survey.rows for role in ("choices", "answer")]
        self.scorer = dataset.scorer
        self.of: Literal["letter", "text"] | None = (
            self.scorer.of if self.scorer else ("text" if all(answered) else None)
        )
        self.can_derive = {"choices", "answer"} <= set(self.roles)
        if self.choices and not self.can_derive:
            raise self._bad("choices in several columns need an answer", "name its column", "columns.answer")
        if dataset.answer_is is not None:
            self._check_answer_is()

    def _check_answer_is(self) -> None:
        """Raises DataError where nothing would read it."""
        columns, labels = self.choices or ((), None)
        found = None
        if not self.can_derive:
            found = "only multiple choice has it, and the rows have no choices and answer"
        elif labels is not None:
            found = "columns.choices gives each choice a name, and the answer is one of these names"
        elif self.roles["answer"] in columns:
            found = "the answer column is one of the choices, and holds the correct one"
        if found is not None:
            raise self._bad(found, "remove it", "answer_is")

    def format(self) -> Format:
        if self.of is not None and not self.can_derive:
            raise self._bad("the choice scorer needs choices and an answer", "name them in columns", "scorer")
        kind = self._kind()
        explicit = self.dataset.template
        beside = [role for role in BESIDE_TURNS if role in self.named]
        if beside and (explicit is not None or kind is None or not kind.conversation):
            found = "only conversations have it, and the rows are none"
            raise self._bad(found, "remove it, or put its column into a template", f"columns.{beside[0]}")
        if explicit is None and kind is None:
            raise self._unknown()
        if explicit is None and kind is not None:
            self._check_columns_of_choices(kind)
        if explicit is None and kind is not None and kind.conversation:
            if self.of is not None:
                raise self._bad("the choice scorer needs a prompt, not messages", "give a template", "scorer")
            nothing = Template.parse("")
            return Format(
                roles=self.roles,
                measure=self._measure(conversation=True),
                kind=kind,
                prompt=nothing,
                completion=nothing,
                stated=self._stated(nothing),
            )
        prompt = self._written(explicit.prompt, "prompt") if explicit else self._known(kind.prompt if kind else "")
        completion = self._completion(kind)
        option = None
        if self.of is not None:  # if the completion contains the choice, score the text that is trained
            name = f"answer_{self.of}"
            option = completion if name in completion.names else Template.parse(f" {{{name}}}")
        short = explicit is None and kind is not None and "input" in kind.roles
        return Format(
            roles=self.roles,
            measure=self._measure(),
            kind=kind if explicit is None else None,
            prompt=prompt,
            completion=completion,
            without_input=self._known(INSTRUCTION.prompt) if short else None,
            option=option,
            stated=self._stated(completion),
            answer_is=self.dataset.answer_is,
            spread=Spread(*self.choices, self.roles["answer"]) if self.choices else None,
        )

    def _configured(self) -> tuple[dict[str, str], tuple[tuple[str, ...], tuple[str, ...] | None] | None]:
        """The configured role -> column, and the columns and labels of choices in several columns."""
        named: dict[str, str] = {}
        choices = None
        for role, column in (self.dataset.columns or {}).items():
            if isinstance(column, str):
                named[role] = column
                continue
            labels = tuple(column) if isinstance(column, Mapping) else None
            columns = tuple(column.values()) if isinstance(column, Mapping) else column
            named[role], choices = columns[0], (columns, labels)
        return named, choices

    def _stated(self, completion: Template) -> Template | None:
        """`generate` scorer: template of the correct answer, if `columns` names it; a letter, if one is learned."""
        if self.scorer is None or self.scorer.name != "generate" or "answer" not in self.named:
            return None
        if "choices" in self.roles:
            lettered = self.scorer.extract == "letter" or "answer_letter" in completion.names
            return Template.parse("{answer_letter}" if lettered else "{answer_text}")
        return self._known("{answer}", numbers=True)

    def _completion(self, kind: Kind | None) -> Template:
        """The configured template or column; else the correct choice, if choices are scored; else the format's."""
        explicit = self.dataset.template
        if explicit is not None and explicit.completion is not None:
            return self._written(explicit.completion, "completion")
        stated = [role for role in ("completion", "output") if role in self.named]
        if self.of is not None and not stated:
            return Template.parse(f" {{answer_{self.of}}}")
        if explicit is None and kind is not None:
            # An answer may be a number, but a column that is configured as the completion may not.
            return self._known(kind.completion, numbers="answer" in kind.roles)
        for role in (*stated, "completion", "output"):
            if role in self.roles:
                return self._known(f"{{{role}}}")
        if "answer" in self.roles:
            return self._known("{answer}" if not self.can_derive else QUESTION.completion, numbers=True)
        raise self._bad("the template has no completion, and no column is one", "give template.completion", "template")

    def _measure(self, *, conversation: bool = False) -> Measure:
        if self.scorer is None:
            return Measure(name="choice" if self.of else "loss")
        extract, stop = self.scorer.extract or "text", self.scorer.stop
        if stop is None:
            stop = (BLANK_LINE,) if self.scorer.shots and not conversation else ()
        return Measure(
            name=self.scorer.name,
            normalize=self.scorer.normalize or "none",
            control=self.scorer.control,
            extract=extract if isinstance(extract, str) else "regex",
            pattern="" if isinstance(extract, str) else extract.regex,
            stop=stop,
            max_new_tokens=self.scorer.max_new_tokens or 0,
        )

    def _roles(self) -> dict[str, str]:
        """Role -> column: the configured ones, and columns that have a role's name and are not always null."""
        spread = [("choices", column) for column in self.choices[0]] if self.choices else []
        for role, column in (*self.named.items(), *spread):
            if column not in self.columns:
                raise self._bad(f"no row has a column {shown(column)}", one_of(column, self.columns), f"columns.{role}")
            if column in self.survey.null:
                found = f"the column {shown(column)} is null in all of the {self.survey.rows} rows"
                raise self._bad(found, "name a column that is filled", f"columns.{role}")
        known = {role for kind in KINDS for role in kind.roles} | {*BESIDE_TURNS}
        filled = [column for column in self.columns if column in known and column not in self.survey.null]
        roles = {column: column for column in filled} | self.named
        if self.dataset.template is None and not any(set(kind.roles) <= roles.keys() for kind in KINDS):
            others = {role: column for column, role in OF_THE_HUB.items() if column in self.columns}
            roles |= {role: column for role, column in others.items() if "choices" in roles and role not in roles}
        return roles

    def _kind(self) -> Kind | None:
        """The first kind whose roles are all configured, or else are all configured or columns of the rows."""
        wanted = self.dataset.format
        for roles in (set(self.named), set(self.roles)):
            for kind in KINDS:
                if set(kind.roles) <= roles and wanted in {None, kind.name}:
                    if kind is TEXT and wanted is None and not self.named:
                        self._check_only_text()
                    if kind.roles == TURNS.roles and self._are_turns(self.roles["prompt"]):
                        return TURNS
                    return LETTERED if kind is QUESTION and self.of == "letter" else kind
        return None

    def _are_turns(self, column: str) -> bool:
        """Whether the first row that has the column has a list there."""
        values = (row.values.get(column) for row in self.rows)
        return isinstance(next((value for value in values if value is not None), None), list | tuple)

    def _check_only_text(self) -> None:
        labels = [column for column in self.columns if column in LABELS]
        if labels and self.dataset.template is None:
            found = f"there is a column {labels[0]} besides text, which the model would not see"
            raise self._bad(found, "set format: text, or give a template with both", "format")

    def _check_columns_of_choices(self, kind: Kind) -> None:
        """Raises DataError if every answer names another column that nothing reads: it holds a choice."""
        role = next((role for role in ("completion", "output", "answer") if role in kind.roles), "")
        if not role or self.choices or "choices" in kind.roles:
            return
        read = {self.roles[name] for name in kind.roles}
        column, found = self.roles[role], set()
        for row in self.rows:
            answer = row.values.get(column)
            name = answer.strip() if isinstance(answer, str) else ""
            prompt = " ".join(str(row.values.get(other)) for other in read - {column})
            if name not in self.columns or name in read or str(row.values.get(name)) in prompt:
                return
            found.add(name)
        names = ", ".join(f"{name}: {name}" for name in sorted(found))
        what = f"every {column} is the name of a column that the model would not see ({', '.join(sorted(found))})"
        fix = f"name all choices, as in columns: {{choices: {{{names}}}}}, or give a template"
        raise self._bad(what, fix, "columns")

    def _unknown(self) -> DataError:
        columns = ", ".join(map(_name, self.columns))
        found = f"no known format has these columns: {columns}"
        if self.dataset.format is not None:
            expected = [" + ".join(kind.roles) for kind in KINDS if kind.name == self.dataset.format]
            found = f"format {self.dataset.format} needs {' or '.join(expected)}, but the columns are: {columns}"
        if self.survey.null:
            found += f" (null in every row: {', '.join(map(_name, self.survey.null))})"
        if any(name != name.strip() for name in self.columns):
            found += "; a name in quotes has a blank at its beginning or end"
        fix = f"name the columns of one of: {EXPECTED}; or give a template"
        return self._bad(found, fix, "columns")

    def _known(self, text: str, *, numbers: bool = False) -> Template:
        return Template.parse(text, numbers=numbers).renamed(self.roles)

    def _written(self, text: str, key: str) -> Template:
        """A template of the configuration. Raises DataError if a brace or a name is wrong."""
        try:
            template = Template.parse(text)
        except ValueError as error:
            raise self._bad(str(error), "write {{ and }} for braces", f"template.{key}") from None
        known = [*self.columns, *(DERIVED if self.can_derive else ())]
        for name in template.names:
            if name not in known:
                raise self._bad(f"no row has a column {shown(name)}", one_of(name, known), f"template.{key}")
        return template

    def _bad(self, found: str, fix: str, key: str) -> DataError:
        return DataError(complaint(found, fix, field=f"{self.dataset.field}.{key}"))


def _name(column: str) -> str:
    """The name of a column; in quotes if it begins or ends with a blank, which would not be seen."""
    return shown(column) if column != column.strip() else column
