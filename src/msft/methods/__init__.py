"""The methods: one small file each, and this table. A new method is a file and a line here.

A package of its own adds a method by an entry point of the group `msft.methods`; a single module by calling `register`
when it is imported (`msft train c.yaml --import my_method`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib.metadata import entry_points
from typing import Any

from msft.core.errors import first_line
from msft.core.method import Method
from msft.core.outlook import Outlook, Standing
from msft.core.vocabulary import Brief, Outcome
from msft.methods import auto, coba, continual, dynamix, ies, merge, msft, one_pass, placebo, self_distil, sft, sro, wsd

METHODS: dict[str, Method] = {
    "msft": msft.METHOD,
    "sft": sft.METHOD,
    "auto": auto.METHOD,
    "continual": continual.METHOD,
    "sro": sro.SRO,
    "soft_sro": sro.SOFT_SRO,
    "one_pass": one_pass.METHOD,
    "dynamix": dynamix.METHOD,
    "ies": ies.METHOD,
    "placebo": placebo.METHOD,
    "wsd": wsd.METHOD,
    "coba": coba.METHOD,
    "merge": merge.METHOD,
    "self_distil": self_distil.METHOD,
}
PASSED: dict[str, Method] = {}
"""Methods that the Python API received as objects: reports find their outlook here, and no command offers them."""
IMPORTED: dict[str, str] = {}
"""The module of `--import` that registered a method; commands that are printed for its runs name it too."""
GROUP = "msft.methods"
"""The group of entry points: `my_method = "my_package.module:METHOD"`."""


def register(name: str, method: Method) -> None:
    """Makes a method known under a name. Raises ValueError where the name belongs to another method."""
    if not isinstance(method, Method):
        raise ValueError(f"{name} must be a msft.core.method.Method, found {type(method).__name__}")
    if not name or set(name) & set(",: "):
        raise ValueError(f"the name of a method must have no comma, colon or space, found {name!r}")
    if not is_dataclass(method.Params):
        raise ValueError(f"the Params of {name} must be a dataclass, found {method.Params!r}")
    if METHODS.setdefault(name, method) is not method:
        raise ValueError(f"the name {name} belongs to another method")


def load_installed() -> list[str]:
    """Registers the methods of installed packages; returns what is wrong with those that cannot be, one line each."""
    problems = []
    for point in entry_points(group=GROUP):
        try:
            register(point.name, point.load())
        except Exception as error:  # a package may do anything when it is imported
            package = point.dist.name if point.dist else point.value
            problems.append(f"the method {point.name} of the package {package} is left out: {first_line(error)}")
    return problems


def outlook_of(name: str, brief: Brief, at: Standing | None = None) -> Outlook:
    """What the method of this name may do at most from `at` on; the outlook that says nothing where it is unknown.

    `brief.params` may be the method's own `Params`, or, as a journal gives it back, a mapping.
    """
    method = METHODS.get(name) or PASSED.get(name)
    return Outlook() if method is None else method.outlook_at(_own(method, brief), at)


def explanation_of(name: str, brief: Brief, outcomes: Sequence[Outcome]) -> list[str]:
    """What the method of this name says about its decisions so far; empty where it says nothing, or is unknown."""
    method = METHODS.get(name) or PASSED.get(name)
    return [] if method is None or method.explain is None else method.explain(_own(method, brief), outcomes)


def _own(method: Method, brief: Brief) -> Brief:
    if isinstance(brief.params, Mapping):
        return replace(brief, params=params_of(method, brief.params))
    return brief


def params_of(method: Method, values: Mapping[str, Any]) -> Any:
    """The method's `Params` from a journal's mapping, where tuples are lists; unknown names are left out."""
    known = {field.name for field in fields(method.Params)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return method.Params(**{name: value for name, value in given.items() if name in known})
