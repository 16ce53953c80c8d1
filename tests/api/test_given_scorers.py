"""Scorers by name, by sub-dataset and as functions: each becomes what a resumed run can read, or is refused."""

from __future__ import annotations

import functools
import re
import sys
import types

import pytest

from msft import MSFTConfig, MSFTTrainer
from msft.core.errors import ConfigError, UserError

ROWS = [{"prompt": "p", "completion": "c"}]
TAKES_MODULE = """\
def exact(answers):
    return [float(each["generated"] == each["completion"]) for each in answers]


def outer():
    def inner(answers):
        return exact(answers)

    return inner
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "scorers_of_ours.py").write_text(TAKES_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import scorers_of_ours

    yield scorers_of_ours
    del sys.modules["scorers_of_ours"]


def scorers(tasks=("a", "b"), **given):
    args = MSFTConfig(output_dir="run", **given)
    config = MSFTTrainer(model="model", args=args, train_dataset=dict.fromkeys(tasks, ROWS)).config
    return {
        each.id: None if each.scorer is None else each.scorer.model_dump(exclude_defaults=True)
        for each in config.datasets
    }


def names(found):
    return {task: section and section["name"] for task, section in found.items()}


def test_a_function_of_a_module_is_given_by_its_name(module):
    name = "scorers_of_ours:exact"
    assert names(scorers(scorer=module.exact)) == {"a": name, "b": name}
    found = scorers(scorer={"name": module.exact, "max_new_tokens": 8})["b"]
    assert (found["name"], found["max_new_tokens"]) == (name, 8)
    assert names(scorers(dataset_kwargs={"b": {"scorer": module.exact}})) == {"a": None, "b": name}
    assert names(scorers(scorer={"b": module.exact, "a": "loss"})) == {"a": "loss", "b": name}
    assert scorers(scorer=module.exact) == scorers(scorer=name)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda module: lambda answers: [], "has no name by which a resumed run could import it"),
        (lambda module: module.outer(), "outer.<locals>.inner .*has no name"),
        (lambda module: functools.partial(module.exact), "has no name"),
        (lambda module: types.FunctionType(module.exact.__code__, {"__name__": "__main__"}, "exact"),
         "exact is a function of the script itself"),
        (lambda module: types.FunctionType(module.exact.__code__, vars(module), "exact"),
         "scorers_of_ours:exact is another function than the one that was given"),
        (lambda module: types.FunctionType(module.exact.__code__, {"__name__": "nowhere"}, "exact"),
         "nowhere is a module without a file"),
        (lambda module: types.FunctionType(module.exact.__code__.replace(co_qualname="absent"), vars(module)),
         "scorer scorers_of_ours:absent: scorers_of_ours has no function absent"),
    ],
)  # fmt: skip
def test_a_function_that_a_resumed_run_could_not_import_is_refused(module, made, said):
    fix = re.escape('. Fix: put the function into a module file beside the script, and give "module:function"')
    function = made(module)
    with pytest.raises(ConfigError, match=f"MSFTConfig scorer: .*{said}.*{fix}"):
        scorers(scorer=function)
    with pytest.raises(ConfigError, match=rf"MSFTConfig dataset_kwargs\['a'\].scorer: .*{said}"):
        scorers(dataset_kwargs={"a": {"scorer": function}})
    with pytest.raises(ConfigError, match=f"MSFTConfig aggregate.scorer: .*{said}"):
        scorers(aggregate={"path": "exam.jsonl", "scorer": function})


def test_scorers_by_sub_dataset():
    given = {"a": "exact_match", "b": {"name": "generate", "extract": "####"}}
    found = scorers(scorer=given)
    assert names(found) == {"a": "exact_match", "b": "generate"} and found["b"]["extract"] == "####"
    assert names(scorers(scorer={"a": "loss"})) == {"a": "loss", "b": None}
    assert names(scorers(scorer=given, dataset_kwargs={"a": {"scorer": "loss"}})) == {"a": "loss", "b": "generate"}
    assert names(scorers(scorer={"name": "loss"})) == {"a": "loss", "b": "loss"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"aa": "loss", "b": "loss"}, "MSFTConfig scorer: there is no sub-dataset 'aa'. Fix: did you mean 'a'?"),
        ({"nmae": "loss"}, "MSFTConfig scorer: there is no sub-dataset 'nmae'. Fix: "),
        ({"a": {"name": "los"}}, "MSFTConfig datasets.0.scorer.name: found 'los'"),
        ({"name": "loss", "a": "loss"}, "MSFTConfig datasets.0.scorer.a: "),
        (3, "MSFTConfig datasets.0.scorer: found 3"),
    ],
)
def test_scorers_that_cannot_be_used(given, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        scorers(scorer=given)


def test_a_sub_dataset_named_like_a_key_of_a_scorer_is_no_guess():
    with pytest.raises(ConfigError, match=r"scorer: 'name' is a key of a scorer, and a sub-dataset. Fix: .*kwargs"):
        scorers(tasks=("name", "b"), scorer={"name": "loss"})


def test_what_is_not_there_is_said_when_the_trainer_is_made(module, monkeypatch):
    for given in ({"scorer": "scorers_of_us:exact"}, {"aggregate": {"path": "x", "scorer": "scorers_of_us:exact"}}):
        with pytest.raises(UserError, match="scorer scorers_of_us:exact: there is no module scorers_of_us"):
            scorers(**given)
    with pytest.raises(UserError, match="scorers_of_ours has no function exakt"):
        scorers(dataset_kwargs={"a": {"scorer": "scorers_of_ours:exakt"}})
    monkeypatch.setattr("msft.run.trackers.get_available_trackers", lambda: ["tensorboard"])
    scorers(report_to="tensorboard")
    with pytest.raises(ConfigError, match=r"report_to: the package wandb is not installed. Fix: pip install wandb"):
        scorers(report_to="wandb")
