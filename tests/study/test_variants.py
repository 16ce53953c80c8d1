"""The names of methods and controls, and the configuration behind each."""

from __future__ import annotations

import pytest
from job import make_data

from msft.config.reader import load
from msft.config.schema import Config
from msft.core.errors import ConfigError
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


@pytest.mark.parametrize("own", [None, 0.5])
def test_only_the_controls_change_how_a_model_is_trained(config: Config, own: float | None) -> None:
    """A decaying one is without averages, an averaged one without decay, whatever the configuration has."""
    config = config.model_copy(update={"training": config.training.model_copy(update={"average": own})})
    names = ["sft", "sft_decay", "msft_decay", "sft_average", "msft_average", "auto", "sft_average_equal_flops"]
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
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["sft", "msff"], "did you mean 'msft'"),
        (["msft:relaese"], "did you mean 'msft:release'"),
        (["sft", "sft_equal_flops"], "there is none. Fix: add msft"),
        (["sft_average_equal_flops"], "there is none. Fix: add auto"),
        (["sft", "sft"], "names a method twice"),
        (["all", "sft"], "`all` only"),
        ([""], "use one of: msft"),
    ],
)
def test_what_cannot_be_compared_is_named(config: Config, names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match="Fix") as raised:
        variants(config, names)
    assert said in str(raised.value)


def test_parameters_that_reach_nobody_are_told(config: Config) -> None:
    assert ignored(config, ["msft", "sft", "placebo"]) == ["Note: your setting `budget` applies to msft only."]
    training = config.training.model_copy(update={"schedule": "linear"})
    told = ignored(config.model_copy(update={"training": training}), ["msft"])
    assert len(told) == 1
    assert "linear" in told[0]
