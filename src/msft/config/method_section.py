"""The `method` section: name, preset, the keys every method has, and the method's own parameters (design 1, 4)."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model

from msft.config.problems import Problem, ProblemsError, one_of, shown, unknown_key
from msft.config.section import MISSING, STRICT, Section, problem_of
from msft.core.method import Method
from msft.core.vocabulary import LATER
from msft.core.wire import KEPT_NAMES
from msft.methods import METHODS

RENAMED = {
    kept.removeprefix("method."): name.removeprefix("method.")
    for name, kept in KEPT_NAMES.items()
    if name.startswith("method.")
}
"""Keys of a method section that were renamed after version 0.1: old name -> new name."""


@dataclasses.dataclass(frozen=True)
class Absent:
    """Marks a key with the value that a journal without the key has, where that is not the key's default."""

    means: Any


def later(section: type[BaseModel]) -> dict[str, Any]:
    """The keys of a section that are marked `LATER`, and the value that a journal without the key has."""
    return {
        name: next((mark.means for mark in field.metadata if isinstance(mark, Absent)), field.default)
        for name, field in section.model_fields.items()
        if LATER in field.metadata
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """A resolved method: the defaults, overridden by the preset, overridden by the user's values."""

    name: str
    preset: str
    max_epochs: float | None
    """Maximum epochs of the final model; None: only `max_rollouts` ends the search."""
    eval_every: float
    """Epochs between evaluations."""
    select: Literal["best", "last"]
    average: Literal["macro", "micro"]
    score_excluded: Literal["auto", "rollout", "tick"]
    refit: bool
    params: Any
    """The method's own `Params`."""
    definition: Method
    """The method that `name` refers to."""

    @property
    def horizon(self) -> float:
        """`max_epochs` as a number: infinite where there is no limit."""
        return math.inf if self.max_epochs is None else self.max_epochs

    def as_dict(self) -> dict[str, Any]:
        """The flat mapping from which `resolve` makes an equal MethodConfig."""
        common = [field.name for field in dataclasses.fields(self) if field.name not in {"params", "definition"}]
        return {name: getattr(self, name) for name in common} | dataclasses.asdict(self.params)


class Common(Section):
    """The keys that every method has."""

    max_epochs: float | None = Field(default=10.0, gt=0)
    """Maximum epochs of the final model, discarded training not counted; null: only `max_rollouts` ends the search."""
    eval_every: float = Field(default=0.25, gt=0)
    """Epochs between evaluations."""
    select: Literal["best", "last"] = "best"
    """Which evaluation gives the final model: the one with the best average over all sub-datasets, or the last."""
    average: Literal["macro", "micro"] = "macro"
    """How scores are averaged over sub-datasets: all count equally (macro), or by their number of validation items
    (micro)."""
    score_excluded: Annotated[Literal["auto", "rollout", "tick"], LATER, Absent("rollout")] = "auto"
    """When excluded sub-datasets are scored: at roll-back points and ends of roll-outs (rollout), or at every
    evaluation (tick), which makes every evaluation a candidate for the final model. `auto`: tick, if scoring all
    sub-datasets costs at most a quarter of the training between two evaluations. No exclusion depends on it."""
    refit: Annotated[bool, LATER] = False
    """After the search, train once more from the base model: on all rows, those that were held out for validation too,
    with the same exclusions at the same epochs and the same teachers. The final model is the end of that run, which has
    no validation score. For the methods sft, msft, auto and self_distil."""


def resolve(section: object, methods: Mapping[str, Method] = METHODS) -> MethodConfig:
    """The `method` section as a MethodConfig; a text is a name. Raises ProblemsError, naming each key that is wrong."""
    if isinstance(section, MethodConfig):
        return section
    if isinstance(section, str):
        section = {"name": section}
    if not isinstance(section, Mapping):
        raise ProblemsError([Problem(f"found {shown(section)}", "give a mapping, such as {name: msft}")])
    given = dict(section)
    name, method = _named(given.pop("name", None), methods, "name")
    preset, values = _named(given.pop("preset", next(iter(method.presets))), method.presets, "preset")
    common, fields = set(Common.model_fields), [field.name for field in dataclasses.fields(method.Params)]
    problems = [Problem(f"the key {old} was renamed to {new}", f"write {new}", (old,)) for old, new in RENAMED.items()
                if old in given]  # fmt: skip
    problems += [
        _unknown(str(key), ["name", "preset", *Common.model_fields, *fields], name, methods)
        for key in given
        if key not in common and key not in fields and key not in RENAMED
    ]
    merged = {key: value for key, value in {**values, **given}.items() if key in common or key in fields}
    brief = _checked(Common, {key: value for key, value in merged.items() if key in common}, problems)
    own = _checked(
        _model_of(method.Params), {key: value for key, value in merged.items() if key not in common}, problems
    )
    if brief is None or own is None or problems:
        raise ProblemsError(problems)
    if brief.refit and not method.refits:
        able = ", ".join(each for each, known in methods.items() if known.refits)
        found = f"no run on all rows can follow the method {name}"
        raise ProblemsError([Problem(found, f"remove refit, or use one of: {able}", ("refit",))])
    params = _built(method.Params, {field: getattr(own, field) for field in fields})
    if brief.max_epochs is None and getattr(params, "max_rollouts", None) is None:
        fix = "give the epochs after which the search ends" + (", or max_rollouts" if "max_rollouts" in fields else "")
        raise ProblemsError([Problem("without max_epochs nothing ends the search", fix, ("max_epochs",))])
    return MethodConfig(name=name, preset=preset, **brief.model_dump(), params=params, definition=method)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the `method` section: an alternative for each method, with its parameters, or a name."""
    alone = {"title": "name", "enum": list(METHODS), "description": "The name of a method, without parameters."}
    return {
        "description": "The method, which decides which sub-datasets are trained, and for how long.",
        "oneOf": [*(_json_schema(name, method) for name, method in METHODS.items()), alone],
    }


def _json_schema(name: str, method: Method) -> dict[str, Any]:
    own = _model_of(method.Params).model_json_schema()["properties"] if dataclasses.fields(method.Params) else {}
    docs = _attribute_docs(method.Params)
    preset, values = next(iter(method.presets.items()))
    keys = Common.model_json_schema()["properties"] | {
        key: value | ({"description": docs[key]} if key in docs else {}) for key, value in own.items()
    }
    properties = {
        "name": {"const": name},
        "preset": {"enum": list(method.presets), "default": preset},
        **{key: value | ({"default": values[key]} if key in values else {}) for key, value in keys.items()},
    }
    return {"title": name, "type": "object", "additionalProperties": False, "required": ["name"],
            "properties": properties}  # fmt: skip


def _attribute_docs(params: type) -> dict[str, str]:
    """The attribute docstrings of a class and its base classes; without classes whose source is not available."""
    docs: dict[str, str] = {}
    for cls in reversed(params.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        except (OSError, TypeError):
            continue
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                docs[field.target.id] = inspect.cleandoc(str(ast.literal_eval(below.value)))
    return docs


def _unknown(key: str, known: list[str], name: str, methods: Mapping[str, Method]) -> Problem:
    """The problem of a key that the method `name` does not have; other methods may have it."""
    others = [each for each, m in methods.items() if key in {field.name for field in dataclasses.fields(m.Params)}]
    if not others:
        return unknown_key(key, known)
    return Problem(
        f"{name} has no such key", f"leave it out, or name a method that has it: {', '.join(others)}", (key,)
    )


def _named(name: object, known: Mapping[str, Any], key: str) -> tuple[str, Any]:
    if name is None:
        raise ProblemsError([Problem(MISSING, f"use one of: {', '.join(known)}", (key,))])
    if not isinstance(name, str) or name not in known:
        fix = (key == "name" and _of_compare(str(name), known)) or one_of(str(name), known)
        if key == "name" and fix.startswith("use one of"):
            fix += "; or pass --import with the module that registers it"
        raise ProblemsError([Problem(f"found {shown(name)}", fix, (key,))])
    return name, known[name]


def _of_compare(name: str, methods: Mapping[str, Any]) -> str:
    """What to write for a name that only `msft compare --methods` knows; empty for any other."""
    method, colon, preset = name.partition(":")
    if colon and method in methods:
        return f"that is a name of msft compare; here, write name: {method}, and preset: {preset}"
    ways = {"_average": "training.average: 1", "_decay": "training.schedule: linear"}
    for end, way in ways.items():
        if (method := name.removesuffix(end)) in methods and method != name:
            return f"that is a name of msft compare; here, write name: {method}, and {way}"
    return ""


def _model_of(params: type) -> type[BaseModel]:
    """A strict pydantic model with the fields of a standard-library dataclass."""
    hints = typing.get_type_hints(params)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(params):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = Field(default_factory=field.default_factory)
        hint = hints[field.name]
        if typing.get_origin(hint) is tuple:  # YAML has only lists, which a strict tuple refuses
            default = Field(default, strict=False)
        fields[field.name] = (hint, default)
    model: type[BaseModel] = create_model(params.__name__, __config__=STRICT, **fields)
    return model


def _checked(model: type[BaseModel], values: dict[str, Any], problems: list[Problem]) -> Any:
    """The validated model; None if the values are invalid, with the problems added to `problems`."""
    try:
        return model(**values)
    except ValidationError as error:
        problems.extend(problem_of(detail) for detail in error.errors())
        return None


def _built(params: type, values: dict[str, Any]) -> Any:
    try:
        return params(**values)
    except ValueError as error:
        # Such a message begins with the parameter: "budget must be > 0, found -1".
        first = str(error).split(" ", 1)[0].split(".", 1)[0]
        key = (first,) if first in values else ()
        raise ProblemsError([Problem(str(error), "choose a value that keeps this rule", key)]) from None
