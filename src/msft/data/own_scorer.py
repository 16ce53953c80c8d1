"""A user's own scorer, `module:function`: imported before a model is loaded, called with generated texts.

The function takes a list of answers, each a mapping with `prompt`, `completion` (the reference), `generated` (the
model's text up to its end or a stop sequence) and `row` (the row's fields), and returns as many floats in [0, 1].
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from msft.core.errors import UserError, complaint, in_a_line
from msft.core.plain_words import kind_of, many

Answers: TypeAlias = list[dict[str, Any]]
RULE = "return a list with one float in [0, 1] for each answer"


class ScorerError(UserError):
    """A user's own scorer cannot be found, fails, or returns a value that is not a score."""


def resolve(name: str) -> Callable[[Answers], Any]:
    """The function that `module:function` names, from the working directory or an installed package.

    Imports only the named module. Raises ScorerError.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(name, f"cannot be imported: {in_a_line(error)}", "install what it imports") from error
        fix = "put the file into the working directory, or install its package"
        raise _failed(name, f"there is no module {module_name}", fix) from None
    except Exception as error:  # importing a module may raise anything
        raise _failed(name, f"cannot be imported: {in_a_line(error)}", "fix the module") from error
    finally:
        sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        fix = "name a function that takes a list of answers"
        raise _failed(name, f"{module_name} has no function {function_name}", fix)
    checked: Callable[[Answers], Any] = function
    return checked


def fingerprint(name: str) -> str:
    """SHA-256 of the module's source, so that a resumed run detects a changed scorer."""
    try:
        source = inspect.getsource(sys.modules[resolve(name).__module__])
    except (OSError, TypeError, KeyError):
        source = name
    return hashlib.sha256(source.encode()).hexdigest()


def call(name: str, answers: Sequence[Mapping[str, Any]], places: Sequence[str]) -> list[float]:
    """The score of each answer. `places`: where each item comes from, for messages. Raises ScorerError."""
    function = resolve(name)
    try:
        scores = function([dict(answer) for answer in answers])
    except Exception as error:  # a function may raise anything
        place = _culprit(function, answers, places)
        raise _failed(name, f"raised {in_a_line(error)}", "fix the function", place) from error
    if not isinstance(scores, Sequence) or isinstance(scores, str) or len(scores) != len(answers):
        size = many(len(scores), "value") if isinstance(scores, Sequence) else kind_of(scores)
        raise _failed(name, f"returned {size} for {many(len(answers), 'answer')}", RULE)
    for score, place in zip(scores, places, strict=True):
        number = isinstance(score, int | float) and math.isfinite(score)
        if not number or not 0 <= score <= 1:
            found = (
                f"returned {score}"
                if number
                else f"returned a value that is not a finite number ({type(score).__name__})"
            )
            raise _failed(name, found, RULE, place)
    return [float(score) for score in scores]


def _culprit(function: Callable[[Answers], Any], answers: Sequence[Mapping[str, Any]], places: Sequence[str]) -> str:
    """The place of the first item that fails when it is scored alone; empty if there is none."""
    for answer, place in zip(answers, places, strict=True):
        try:
            function([dict(answer)])
        except Exception:  # this is the item
            return place
    return ""


def _failed(name: str, found: str, fix: str, place: str = "") -> ScorerError:
    return ScorerError(complaint(f"{found} (item {place})" if place else found, fix, field=f"scorer {name}"))
