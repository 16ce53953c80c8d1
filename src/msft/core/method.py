"""The definition of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msft.core.outlook import Forecast, Outlook, Standing, unknown, with_refit
from msft.core.refit import refitted
from msft.core.vocabulary import Brief, Outcome, Plan


@dataclass(frozen=True)
class Method:
    """A plan, its parameters, its presets and its outlook.

    `Params` is a standard-library dataclass whose annotations and `__post_init__` (raising ValueError) validate the
    configuration. A preset maps names of parameters, and of `max_epochs`, `eval_every`, `select`, ... to values that
    replace their defaults; the first preset is the default. `outlook` returns the upper limits of the method
    (`msft.core.outlook`); without one, `msft check` and the live view show no limits.
    """

    plan: Callable[[Brief], Plan]
    Params: type[Any]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    outlook: Forecast = unknown
    explain: Callable[[Brief, Sequence[Outcome]], list[str]] | None = None
    """Sentences for people on what the method has decided so far and why, from the outcomes of its segments."""
    averaged: bool = False
    """Whether the method reads averaged weights, so that it is refused without `training.average`."""
    refits: bool = False
    """Whether a run on all rows may follow its search (`method.refit`): its final model is then the end of a path of
    training on mixtures of whole sub-datasets, at the rate of `training.schedule`."""

    def plan_of(self, brief: Brief) -> Plan:
        """The plan, with the run on all rows that follows it where the brief asks for one."""
        return self.plan(brief) if brief.whole is None else refitted(self.plan(brief), brief)

    def outlook_at(self, brief: Brief, at: Standing | None = None) -> Outlook:
        """The outlook from `at` on; None: from the start of the search."""
        found = self.outlook(brief, at or Standing.start(brief))
        return found if brief.whole is None else with_refit(found, brief)


def said_by(plan: Callable[[Brief, list[str]], Plan], brief: Brief, outcomes: Sequence[Outcome]) -> list[str]:
    """The sentences that a plan adds to its list while it is told these outcomes: for `Method.explain`."""
    said: list[str] = []
    running = plan(brief, said)
    try:
        next(running)
        for outcome in outcomes:
            running.send(outcome)
    except StopIteration:
        pass
    return said


def require(holds: bool, name: str, rule: str, found: object) -> None:
    """Raises ValueError, naming the parameter, the rule and the value found, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} must be {rule}, found {found!r}")
