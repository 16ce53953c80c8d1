"""Which column plays which role: the `columns` and `format` keys of a data set (design 4)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from msft.config.problems import Problem, ProblemsError, shown
from msft.core.plain_words import many

Role: TypeAlias = Literal[
    "prompt",
    "completion",
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "question",
    "choices",
    "answer",
    "text",
    "system",
    "tools",
]
FormatName: TypeAlias = Literal[
    "prompt_completion", "messages", "sharegpt", "alpaca", "choices", "question_answer", "text"
]
AnswerIs: TypeAlias = Literal["position", "position_from_1", "letter", "text"]
"""What the answer of a multiple choice without labels is."""


def not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Raises ProblemsError for an empty list."""
    if not values:
        raise ProblemsError([Problem("found an empty list", "give at least one item")])
    return values


Names: TypeAlias = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(not_empty)]


def _column_names(named: Any) -> Any:
    names = list(named.values()) if isinstance(named, dict) else named if isinstance(named, list | tuple) else [named]
    if not all(isinstance(name, str) for name in names):
        fix = "give a column's name in quotes, or for choices a list of names"
        raise ProblemsError([Problem(f"found {shown(named)}", fix)])
    return tuple(named) if isinstance(named, list) else named


def _several_only_of_choices(columns: dict[Role, Any]) -> dict[Role, Any]:
    problems = []
    for role, named in columns.items():
        if isinstance(named, str):
            continue
        several = list(named.values()) if isinstance(named, dict) else list(named)
        if role != "choices":
            problems.append(Problem(f"{role} cannot have several columns", "name one; only choices may", (role,)))
        elif not 2 <= len(several) <= 26:
            problems.append(
                Problem(f"found {many(len(several), 'column')}", "name 2 to 26, one for each choice", (role,))
            )
        elif twice := sorted({column for column in several if several.count(column) > 1}):
            problems.append(Problem(f"the column {shown(twice[0])} appears twice", "name each once", (role,)))
    if problems:
        raise ProblemsError(problems)
    return columns


Named: TypeAlias = Annotated[str | tuple[str, ...] | dict[str, str], BeforeValidator(_column_names)]
Columns: TypeAlias = Annotated[dict[Role, Named], AfterValidator(_several_only_of_choices)]


def no_jinja(text: str) -> str:
    """Raises ProblemsError for a template that names columns in double braces only, as Jinja does."""
    found = re.search(r"{{\s*(\w+)\s*}}", text)
    if found and "{" not in text.replace("{{", ""):
        fix = f"write {{{found[1]}}}: column names go in single braces, double braces are literal braces"
        raise ProblemsError([Problem(f"found {shown(found[0])}, but no column in single braces", fix)])
    return text
