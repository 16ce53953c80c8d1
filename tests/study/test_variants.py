"""The names of methods and controls, and the configuration behind each."""

from __future__ import annotations

import pytest
from job import make_data

from msft.config.method_section import resolve
from msft.config.reader import load
from msft.config.schema import Config
from msft.config.temperature import rule
from msft.core.errors import ConfigError
from msft.core.mixing import taken
from msft.study.variants import everything, ignored, variants


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("variants")
    make_data(folder)
    file = folder / "c.yaml"
    file.write_text(
        "model: {name_or_path: gpt2}\noutput: run\nmethod: {name: msft, max_epochs: 6, eval_every: 0.5, budget: 2}\n"
        "datasets: [{id: copy, path: copy.jsonl}]\n"
    )
    return load(file)


def test_the_configured_method_is_taken_as_it_stands_others_with_its_rhythm(config: Config) -> None:
    made = {variant.name: variant.config.method for variant in variants(config, everything())}
    assert set(made) == set(everything())
    assert made["msft"] == config.method
    assert (made["msft:release"].max_epochs, made["msft:release"].params.max_rollouts) == (None, 10)
    assert made["msft:release"].average == "micro"
    for name in set(everything()) - {"msft:release"}:
        assert (made[name].max_epochs, made[name].eval_every, made[name].average) == (6, 0.5, "macro")
    assert made["continual"].select == "last"
    assert made["sro_early"].params.stop_after == 4
    assert (made["auto"].params.peaks, made["auto_placebo"].params.peaks) == ("own", "random")
    assert made["sro"].params.stop_after is None
    assert made["placebo"].params.budget == 2, "the placebo's parameters are those of the search that it copies"


def test_controls_name_what_they_follow_and_come_behind_it(config: Config) -> None:
    made = variants(config, ["placebo", "sft_equal_flops", "sft", "msft:release"])
    follows = {variant.name: (variant.after, variant.rule) for variant in made}
    assert follows == {
        "sft": (None, None),
        "msft:release": (None, None),
        "placebo": ("msft:release", "exclusion_times"),
        "sft_equal_flops": ("msft:release", "equal_flops"),
    }
    assert [variant.name for variant in made][:2] == ["sft", "msft:release"]
    assert variants(config, ["placebo"])[0].after is None, "alone, it runs the search itself"
    names = ["auto", "msft_average", "msft_average_placebo", "sft_average_early", "sft_average_equal_flops"]
    averaged = {variant.name: variant for variant in variants(config, names)}
    assert {name: (each.after, each.rule) for name, each in averaged.items() if each.after} == {
        "msft_average_placebo": ("msft_average", "exclusion_times"),
        "sft_average_early": ("auto", "first_rollout"),
        "sft_average_equal_flops": ("auto", "equal_flops"),
    }
    assert {each.config.training.average for each in averaged.values()} == {1.0}
    search, placebo = (averaged[name].config.method.params for name in ("msft_average", "msft_average_placebo"))
    assert (placebo.budget, placebo.smooth) == (search.budget, search.smooth) == (2, 5)


@pytest.mark.parametrize("own", [None, 0.5])
def test_only_the_controls_change_how_a_model_is_trained(config: Config, own: float | None) -> None:
    """A decaying one is without averages, an averaged one without decay, whatever the configuration has."""
    config = config.model_copy(update={"training": config.training.model_copy(update={"average": own})})
    names = ["sft", "sft_decay", "msft_decay", "sft_average", "msft_average", "auto", "sft_average_equal_flops", "wsd"]
    made = {
        variant.name: (variant.config.training.schedule, variant.config.training.average)
        for variant in variants(config, names)
    }
    assert made == {
        "sft": ("constant", own),
        "sft_decay": ("linear", None),
        "msft_decay": ("linear", None),
        "sft_average": ("constant", own or 1.0),
        "msft_average": ("constant", own or 1.0),
        "auto": ("constant", own or 1.0),
        "sft_average_equal_flops": ("constant", own or 1.0),
        "wsd": ("constant", None),
    }
    assert {variant.name for variant in variants(config, everything()) if variant.config.data != config.data} == {
        "temperature"
    }


def test_the_cooldown_of_the_configurations_own_method_keeps_its_averages_and_gets_a_constant_rate(
    config: Config,
) -> None:
    training = config.training.model_copy(update={"average": 0.5, "schedule": "linear"})
    own = config.model_copy(update={"training": training, "method": resolve({"name": "wsd", "cooldown": 0.4})})
    (made,) = variants(own, ["wsd"])
    assert made.config.method == own.method
    assert (made.config.training.schedule, made.config.training.average) == ("constant", 0.5)


def test_a_temperature_draws_in_proportion_to_a_power_of_the_sizes(config: Config) -> None:
    """p_i = n_i^(1/T) / sum_j n_j^(1/T), with T = 2 (arXiv 1907.05019): square roots 10, 20, 70 of 5400 in all."""
    (made,) = variants(config, ["temperature"])
    assert made.config.method == variants(config, ["sft"])[0].config.method
    sizes = (100, 400, 4900)
    by_hand = tuple(5400 * n**0.5 / (100**0.5 + 400**0.5 + 4900**0.5) for n in sizes)
    assert by_hand == (540.0, 1080.0, 3780.0)
    assert taken(sizes, (1.0, 1.0, 1.0), rule(made.config.data.mixing)) == by_hand


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["sft", "msff"], "did you mean 'msft'"),
        (["msft:relaese"], "did you mean 'msft:release'"),
        (["sft", "sft_equal_flops"], "there is none. Fix: add msft"),
        (["sft_average_equal_flops"], "there is none. Fix: add auto"),
        (
            ["auto", "msft", "msft_average_placebo"],
            "needs an msft_average run, and there is none. Fix: add msft_average",
        ),
        (["sft_average_early"], "needs an auto run, and there is none. Fix: add auto"),
        (["sft", "sft"], "names a method twice"),
        (["all", "sft"], "all only"),
        ([""], "use one of: msft"),
    ],
)
def test_what_cannot_be_compared_is_named(config: Config, names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match="Fix") as raised:
        variants(config, names)
    assert said in str(raised.value)


def test_parameters_that_reach_nobody_are_told(config: Config) -> None:
    assert ignored(config, ["msft", "sft", "placebo"]) == ["Note: method.budget applies to msft only."]
    training = config.training.model_copy(update={"schedule": "linear"})
    told = ignored(config.model_copy(update={"training": training}), ["msft"])
    assert len(told) == 1
    assert "linear" in told[0]
