"""Resolving the method section against a method's own dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from msft.config.method_section import resolve
from msft.config.problems import ProblemsError
from msft.core.method import Method


@dataclass(frozen=True)
class Params:
    budget: float = 2.0
    order: Literal["given", "size"] = "given"
    names: tuple[str, ...] = ()
    rounds: int | Literal["auto"] = "auto"
    max_rollouts: int | None = None

    def __post_init__(self) -> None:
        if self.budget <= 0:
            raise ValueError(f"budget must be > 0, found {self.budget}")


METHODS = {
    "mine": Method(
        plan=lambda brief: iter(()),  # type: ignore[arg-type,return-value]
        Params=Params,
        presets={"plain": {"eval_every": 0.5}, "endless": {"max_epochs": None, "max_rollouts": 3, "budget": 7}},
    )
}


def problems(section):
    with pytest.raises(ProblemsError) as caught:
        resolve(section, METHODS)
    return {problem.key: problem.found for problem in caught.value.problems}


def test_defaults_then_preset_then_user():
    resolved = resolve({"name": "mine", "budget": 4}, METHODS)
    assert (resolved.preset, resolved.max_epochs, resolved.eval_every, resolved.params.budget) == (
        "plain",
        10.0,
        0.5,
        4.0,
    )
    endless = resolve({"name": "mine", "preset": "endless", "budget": 1.5}, METHODS)
    assert (endless.max_epochs, endless.params.max_rollouts, endless.params.budget) == (None, 3, 1.5)
    assert isinstance(endless.params, Params)


def test_lists_become_tuples_and_all_reads_back():
    resolved = resolve({"name": "mine", "names": ["a", "b"], "rounds": 3}, METHODS)
    assert resolved.params.names == ("a", "b")
    assert resolve(resolved.as_dict(), METHODS) == resolved


def test_each_wrong_key_is_named():
    found = problems({"name": "mine", "budget": True, "order": "up", "select": "both", "bugdet": 1, "eval_every": 0})
    assert set(found) == {("budget",), ("order",), ("select",), ("bugdet",), ("eval_every",)}


def test_the_rule_of_the_dataclass_is_passed_on():
    assert problems({"name": "mine", "budget": -1}) == {("budget",): "budget must be > 0, found -1.0"}


def test_no_horizon_needs_max_rollouts():
    assert ("max_epochs",) in problems({"name": "mine", "max_epochs": None})
    assert ("max_epochs",) in problems({"name": "mine", "preset": "endless", "max_rollouts": None})
    assert resolve({"name": "mine", "max_epochs": None, "max_rollouts": 2}, METHODS).max_epochs is None


@pytest.mark.parametrize("section", ["mime", None, [], {}, {"name": 3}])
def test_sections_that_are_none(section):
    assert problems(section)


def test_a_text_is_a_name():
    """As in `--set method=sft`, which leaves the other keys of the section out."""
    assert resolve("mine", METHODS) == resolve({"name": "mine"}, METHODS)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("mine_average", "that is a name of msft compare; here, write name: mine, and training.average: 1"),
        ("mine_decay", "that is a name of msft compare; here, write name: mine, and training.schedule: linear"),
        ("mine:endless", "that is a name of msft compare; here, write name: mine, and preset: endless"),
        ("mime", "did you mean 'mine'?"),
        ("other_average", "use one of: mine; or pass --import with the module that registers it"),
    ],
)
def test_a_name_of_compare_says_what_to_write(name, fix):
    with pytest.raises(ProblemsError) as caught:
        resolve({"name": name}, METHODS)
    (problem,) = caught.value.problems
    assert problem.fix == fix


def test_a_renamed_key_is_an_error_that_names_the_new_one():
    with pytest.raises(ProblemsError) as caught:
        resolve({"name": "mine", "horizon": 3}, METHODS)
    (problem,) = caught.value.problems
    assert (problem.key, problem.found) == (("horizon",), "the key horizon was renamed to max_epochs")
