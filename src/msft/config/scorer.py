"""The `scorer` section of a sub-dataset (design 3.11)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from msft.config.problems import Problem, ProblemsError, one_of, shown
from msft.config.section import Section


class ShotsConfig(Section):
    """Few-shot prompts: the same examples before every validation and test item."""

    model_config = ConfigDict(serialize_by_alias=True)

    k: int = Field(default=5, ge=1)
    """Number of examples."""
    source: Literal["train"] = Field(default="train", alias="from")
    """Where the examples come from: only training rows, as others would reveal answers."""
    seed: int = Field(default=20, ge=0, lt=2**32)
    """Seed with which the examples are drawn."""


class RegexConfig(Section):
    """The answer is the first group (if there is none, the whole) of the pattern's last match."""

    regex: str


EXTRACT = ("####", "letter", "number", "math", "text")


def _extractor(given: Any) -> Any:
    fix = f"use one of: {', '.join(EXTRACT)}, or {{regex: pattern}}"
    if isinstance(given, Mapping):
        if set(given) != {"regex"} or not isinstance(given["regex"], str) or not given["regex"]:
            raise ProblemsError([Problem(f"found {shown(dict(given))}", fix)])
        try:
            re.compile(given["regex"])
        except re.error as error:
            raise ProblemsError([Problem(f"not a regular expression ({error})", "fix it", ("regex",))]) from None
        return RegexConfig(regex=given["regex"])
    if given is not None and not isinstance(given, RegexConfig) and given not in EXTRACT:
        raise ProblemsError([Problem(f"found {shown(given)}", fix)])
    return given


SCORERS = ("choice", "exact_match", "generate", "loss")
OWN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""A user's own scorer: module:function."""
NAME_SCHEMA = {"type": "string", "anyOf": [{"enum": list(SCORERS)}, {"pattern": f"^{OWN}$"}]}


def _scorer_name(name: str) -> str:
    if name not in SCORERS and not re.fullmatch(OWN, name):
        fix = f"{one_of(name, SCORERS)}; your own scorer is named module:function"
        raise ProblemsError([Problem(f"found {shown(name)}", fix)])
    return name


def _no_blank_stop(stops: tuple[str, ...]) -> tuple[str, ...]:
    if "" in stops:
        raise ProblemsError([Problem("found an empty stop sequence", "remove it: every text begins with it")])
    return stops


class ScorerConfig(Section):
    """How a sub-dataset is scored; a text is a name."""

    name: Annotated[str, AfterValidator(_scorer_name), WithJsonSchema(NAME_SCHEMA)]
    """`choice`, `exact_match`, `generate`, `loss`, or your own as `module:function`: a function from a list of
    `{prompt, completion, generated, row}` to a list of floats in [0, 1]."""
    of: Literal["letter", "text"] | None = None
    """`choice` only (default: text): what is scored for each option, its letter or its text."""
    normalize: Literal["none", "token", "byte"] | None = None
    """`choice` only (default: none): whether an option's log-likelihood is divided by its number of tokens or bytes."""
    extract: Annotated[
        Literal["####", "letter", "number", "math", "text"] | RegexConfig | None, BeforeValidator(_extractor)
    ] = None
    """`generate` only (default: text): how the answer is extracted from the generated text, and from the row's
    completion."""
    stop: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_no_blank_stop)] | None = None
    """`generate` and your own scorer: texts that end the generation; null: a blank line if there are shots that blank
    lines separate (in a conversation, turns do), else none."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """`generate` and your own scorer (default: 256): maximum number of generated tokens."""
    shots: ShotsConfig | None = None
    """Few-shot examples before each prompt; null: none."""
    control: Literal["control", "report"] = "control"
    """The search score, on which the method's decisions are based: the scorer's own search score (`control`), or the
    metric that is also the test metric (`report`). The default of your own scorer is `report`."""

    @model_validator(mode="before")
    @classmethod
    def _keys_of_this_scorer(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"name": given}
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            return given
        name = "your own" if ":" in given["name"] else given["name"]
        if name not in (*SCORERS, "your own"):
            return given  # the check of `name` reports it
        chosen = {key: value for key, value in given.items() if value is not None}
        # The format of the rows, which is not known yet, decides whether blank lines separate shots.
        speaking: dict[str, Any] = {"stop": None if chosen.get("shots") else [], "max_new_tokens": 256}
        keys: dict[str, dict[str, Any]] = {
            "choice": {"of": "text", "normalize": "none"},
            "generate": {"extract": "text", **speaking},
            "your own": {"control": "report", **speaking},
        }
        defaults = keys.get(name, {})
        known = {"control", *defaults}
        problems = []
        for key in dict.fromkeys(key for values in keys.values() for key in values):
            owners = [owner for owner, values in keys.items() if key in values]
            if key in chosen and key not in known:
                found = f"only the {' and '.join(owners)} scorer{'s have' if len(owners) > 1 else ' has'} this key"
                problems.append(Problem(found, f"remove it, or use name: {owners[0]}", (key,)))
        if problems:
            raise ProblemsError(problems)
        return defaults | chosen

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [NAME_SCHEMA, handler(core)]}
