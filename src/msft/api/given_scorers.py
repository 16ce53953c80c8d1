"""Scorers as scripts give them: by name, as settings, by sub-dataset, or as functions.

Another process may resume a run, from its files: so a function becomes its name, `module:function`, where another
process can import it, and is refused where it cannot.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msft.config.problems import one_of
from msft.config.schema import Config
from msft.config.scorer import OWN, ScorerConfig
from msft.core.errors import ConfigError, complaint
from msft.data.own_scorer import ScorerError, resolve

ScorerFunction: TypeAlias = Callable[[list[dict[str, Any]]], Sequence[float]]
"""From answers, each with `prompt`, `completion`, `generated` and `row`, to as many scores in [0, 1]."""
Scorer: TypeAlias = str | Mapping[str, Any] | ScorerFunction
"""The name of a scorer, its settings, or a function."""
IN_A_FILE = 'put the function into a module file beside the script, and give "module:function", or import it from there'


def section_of(given: Any, field: str) -> Any:
    """The `scorer` section that stands for a given scorer; what is none is left for the check of the configuration.
    Raises ConfigError for a function that cannot be named."""
    if callable(given):
        return {"name": _name(given, field)}
    if isinstance(given, Mapping) and callable(given.get("name")):
        return {**given, "name": _name(given["name"], f"{field}.name")}
    return given


def with_scorer(section: Any, field: str) -> Any:
    """A section, such as an entry of `datasets`, with its scorer written out. Raises ConfigError."""
    if not isinstance(section, Mapping) or section.get("scorer") is None:
        return section
    return {**section, "scorer": section_of(section["scorer"], f"{field}.scorer")}


def by_task(given: Scorer | Mapping[str, Scorer] | None, tasks: Sequence[str], file: str) -> dict[str, Any]:
    """The `scorer` section of each sub-dataset that has one. Raises ConfigError for names of no sub-dataset.

    A mapping has either the settings of one scorer, for all, or the names of sub-datasets.
    """
    if not isinstance(given, Mapping):
        return {} if given is None else dict.fromkeys(tasks, section_of(given, f"{file} scorer"))
    settings = [key for key in given if key in ScorerConfig.model_fields]
    named = [key for key in given if key in tasks]
    if clash := [key for key in settings if key in named]:
        found = f"{clash[0]!r} is a key of a scorer, and a sub-dataset"
        fix = f'give the scorers by sub-dataset in dataset_kwargs={{"{clash[0]}": {{"scorer": ...}}}}'
        raise ConfigError(complaint(found, fix, file=file, field="scorer"))
    if settings or not all(isinstance(value, (str, Mapping)) or callable(value) for value in given.values()):
        return dict.fromkeys(tasks, section_of(given, f"{file} scorer"))
    lines = [
        complaint(f"there is no sub-dataset {key!r}", one_of(str(key), tasks), file=file, field="scorer")
        for key in given
        if key not in tasks
    ]
    if lines:
        raise ConfigError("\n".join(lines))
    return {task: section_of(value, f"{file} scorer[{task!r}]") for task, value in given.items()}


def check_own(config: Config) -> None:
    """Imports the functions among the scorers. Raises ScorerError for one that cannot be imported."""
    for name in dict.fromkeys(part.scorer.name for part in config.scored if part.scorer is not None):
        if ":" in name:
            resolve(name)


def _name(function: Any, field: str) -> str:
    """`module:function`, from which another process gets the same function. Raises ConfigError."""
    module, function_name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    name = f"{module}:{function_name}"
    if module == "__main__":
        found = f"{function_name} is a function of the script itself, which a resumed run cannot import"
    elif function_name is None or not re.fullmatch(OWN, name):
        found = f"{function!r} has no name by which a resumed run could import it"
    elif getattr(sys.modules.get(str(module)), "__file__", None) is None:
        found = f"{module} is a module without a file, which a resumed run cannot import"
    else:
        try:
            if resolve(name) is function:
                return name
            found = f"{name} is another function than the one that was given"
        except ScorerError as error:
            found = str(error).partition(". Fix: ")[0]
    raise ConfigError(complaint(found, IN_A_FILE, field=field))
