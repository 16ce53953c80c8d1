"""Texts of a configuration that have a form: not blank, or a day."""

from __future__ import annotations

import datetime
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from msft.config.problems import Problem, ProblemsError, shown


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ProblemsError([Problem("found an empty text", "give a value")])
    return text


def _a_day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ProblemsError([Problem(f"found {shown(text)}, which is not a day", "write it as 2026-01-31")]) from None


Text: TypeAlias = Annotated[str, AfterValidator(_not_blank)]
Day: TypeAlias = Annotated[str, AfterValidator(_a_day)]
