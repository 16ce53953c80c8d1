"""The methods: one small file each, and this table. A new method is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from msft.core.method import Method
from msft.core.outlook import Outlook, Standing
from msft.core.vocabulary import Brief
from msft.methods import continual, dynamix, ies, msft, one_pass, placebo, sft, sro

METHODS: dict[str, Method] = {
    "msft": msft.METHOD,
    "sft": sft.METHOD,
    "continual": continual.METHOD,
    "sro": sro.SRO,
    "soft_sro": sro.SOFT_SRO,
    "one_pass": one_pass.METHOD,
    "dynamix": dynamix.METHOD,
    "ies": ies.METHOD,
    "placebo": placebo.METHOD,
}


def outlook_of(name: str, brief: Brief, at: Standing | None = None) -> Outlook:
    """What the method of this name may do at most from `at` on; of a method that is not known here, nothing.

    `brief.params` may be the method's own `Params`, or, as a journal gives it back, a mapping.
    """
    method = METHODS.get(name)
    if method is None:
        return Outlook()
    if isinstance(brief.params, Mapping):
        brief = replace(brief, params=params_of(method, brief.params))
    return method.outlook(brief, at or Standing.start(brief))


def params_of(method: Method, values: Mapping[str, Any]) -> Any:
    """The method's `Params` from a journal's mapping, where tuples are lists; unknown names are left out."""
    known = {field.name for field in fields(method.Params)}
    return method.Params(**{
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in known
    })  # fmt: skip
