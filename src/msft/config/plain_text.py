"""Texts of a configuration that have a form: not blank, a path, or a day."""

from __future__ import annotations

import datetime
import os
import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from msft.config.problems import Problem, ProblemsError, shown


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ProblemsError([Problem("found an empty text", "give a value")])
    return text


def _a_path(path: str) -> str:
    """The path. Raises ProblemsError for a shell's variable, which would be a part of the name."""
    found = next((match for match in re.finditer(r"\$(?:(\w+)|\{(\w+)\})", path) if match[1] or match[2]), None)
    if found and (found[1] or found[2]) in os.environ and not os.path.lexists(path):
        fix = "write the path out (~ is the home folder), or give it as --set, where the shell replaces variables"
        raise ProblemsError([Problem(f"found {shown(path)}: variables such as {found[0]} are not replaced", fix)])
    return path


def _a_day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ProblemsError([Problem(f"found {shown(text)}, which is not a day", "write it as 2026-01-31")]) from None


Text: TypeAlias = Annotated[str, AfterValidator(_not_blank)]
PathText: TypeAlias = Annotated[Text, AfterValidator(_a_path)]
Day: TypeAlias = Annotated[str, AfterValidator(_a_day)]
