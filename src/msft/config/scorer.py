"""The `scorer` section of a sub-dataset (design 3.11)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema, model_validator

from msft.config.method_section import STRICT
from msft.config.problems import Problem, ProblemsError, one_of, shown


class ShotsConfig(BaseModel):
    """Few-shot prompts: the same examples before every validation and test item."""

    model_config = STRICT | {"serialize_by_alias": True}

    k: int = Field(default=5, ge=1)
    """Examples."""
    source: Literal["train"] = Field(default="train", alias="from")
    """Only training examples may be shown: others would give answers away."""
    seed: int = Field(default=20, ge=0, lt=2**32)
    """Draws them."""


class RegexConfig(BaseModel):
    """An answer is the first group (the whole, where there is none) of a pattern's last match."""

    model_config = STRICT
    regex: str


EXTRACT = ("####", "letter", "number", "math", "text")


def _extractor(given: Any) -> Any:
    mend = f"use one of: {', '.join(EXTRACT)}, or {{regex: pattern}}"
    if isinstance(given, Mapping):
        if set(given) != {"regex"} or not isinstance(given["regex"], str) or not given["regex"]:
            raise ProblemsError([Problem(f"found {shown(dict(given))}", mend)])
        try:
            re.compile(given["regex"])
        except re.error as error:
            raise ProblemsError([Problem(f"this is no regular expression ({error})", "mend it", ("regex",))]) from None
        return RegexConfig(regex=given["regex"])
    if given is not None and not isinstance(given, RegexConfig) and given not in EXTRACT:
        raise ProblemsError([Problem(f"found {shown(given)}", mend)])
    return given


SCORERS = ("choice", "exact_match", "generate", "loss")
OWN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""A user's own scorer: module:function."""


def _scorer_name(name: str) -> str:
    if name not in SCORERS and not re.fullmatch(OWN, name):
        mend = f"{one_of(name, SCORERS)}; your own is named module:function"
        raise ProblemsError([Problem(f"found {shown(name)}", mend)])
    return name


def _no_blank_stop(stops: tuple[str, ...]) -> tuple[str, ...]:
    if "" in stops:
        raise ProblemsError([Problem("found an empty stop sequence", "remove it: every text begins with it")])
    return stops


class ScorerConfig(BaseModel):
    """How a sub-dataset is scored."""

    model_config = STRICT
    name: Annotated[
        str,
        AfterValidator(_scorer_name),
        WithJsonSchema({"type": "string", "anyOf": [{"enum": list(SCORERS)}, {"pattern": f"^{OWN}$"}]}),
    ]
    """`choice`, `exact_match`, `generate`, `loss`, or your own as `module:function`: a function from a list of
    `{prompt, completion, generated, row}` to a list of floats in [0, 1]."""
    of: Literal["letter", "text"] | None = None
    """`choice` only, where the default is text: what stands for an option."""
    normalize: Literal["none", "token", "byte"] | None = None
    """`choice` only, where the default is none: what an option's log-likelihood is divided by."""
    extract: Annotated[
        Literal["####", "letter", "number", "math", "text"] | RegexConfig | None, BeforeValidator(_extractor)
    ] = None
    """`generate` only, where the default is text: how the answer is found in what the model says, and in the row's
    own completion."""
    stop: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_no_blank_stop)] | None = None
    """`generate` and your own: texts that end what the model says; a blank line where there are shots."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """`generate` and your own, where the default is 256."""
    shots: ShotsConfig | None = None
    """None: prompts stand alone."""
    control: Literal["control", "report"] = "control"
    """The score that the search acts on. Your own scorer's default is report."""

    @model_validator(mode="before")
    @classmethod
    def _keys_of_this_scorer(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            return given
        name = "your own" if ":" in given["name"] else given["name"]
        if name not in (*SCORERS, "your own"):
            return given  # the name is what is wrong
        chosen = {key: value for key, value in given.items() if value is not None}
        speaking = {"stop": ["\n\n"] if chosen.get("shots") else [], "max_new_tokens": 256}
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
