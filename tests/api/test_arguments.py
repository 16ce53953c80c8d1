"""What MSFTTrainer and MSFTConfig cannot use is answered with what to write instead."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import Trainer, TrainingArguments

from msft import MSFTConfig, MSFTTrainer
from msft.api.other_trainers import INSTEAD_IN_TRAINER
from msft.core.errors import ConfigError

DATA = {"a": [{"prompt": "p", "completion": "c"}]}


def trainer(data=DATA, splits=None, **changes):
    args = MSFTConfig(**{"output_dir": "run", **changes})
    return MSFTTrainer(model="model", args=args, train_dataset=data, **(splits or {}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output_dir": None}, r"MSFTConfig output_dir: found None. Fix: give a folder's path"),
        ({"output_dir": ""}, "output_dir: found ''"),
        ({"logging_steps": 0}, "logging_steps: found 0. Fix: give a whole number from 1"),
        ({"logging_steps": -5}, "logging_steps: found -5"),
        ({"logging_steps": 0.3}, "logging_steps: found 0.3. .*not a share of all steps"),
        ({"bf16": "yes"}, "bf16: found 'yes'. Fix: give True, False or None"),
        ({"disable_tqdm": "no"}, "disable_tqdm: found 'no'"),
        ({"num_train_epochs": "3"}, "num_train_epochs: found '3'. Fix: give a number"),
        ({"per_device_train_batch_size": "8"}, "per_device_train_batch_size: found '8'"),
        ({"gradient_accumulation_steps": 0.5}, "gradient_accumulation_steps: found 0.5"),
        ({"method": 3}, "MSFTConfig method: found 3"),
        ({"method_kwargs": "msft"}, "method_kwargs: found 'msft'"),
        ({"repeat": 2}, "repeat: found 2"),
        ({"dataset_kwargs": {"a": "exact_match"}}, "dataset_kwargs: found .* Fix: give a dict of dicts"),
        ({"report_to": 1}, "report_to: found 1"),
        ({"max_length": None}, "max_length: found None. Fix: .*None, for no limit, is not supported"),
        ({"lr_scheduler_type": "constant_with_warmup"}, 'found .* "constant" with warmup_ratio'),
        ({"optim": "sgd"}, "optim: found 'sgd'. Fix: give one of: adamw_torch_fused, adamw_torch, .*adafactor, muon"),
        ({"optim": "paged_adamw_8bit"}, "optimizer: .* memory cannot be planned"),
        ({"report_to": "all"}, "training.report_to.0: found 'all'"),
    ],
)
def test_values_that_cannot_be_used(changes, said):
    with pytest.raises(ConfigError, match=said):
        trainer(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "sft", "method_kwargs": {"name": "auto"}}, r"method_kwargs\['name'\]: method names .* give method"),
        (
            {"method_kwargs": {"max_epochs": 3}, "num_train_epochs": 1},
            r"\['max_epochs'\]: num_train_epochs gives it too",
        ),
        (
            {"dataset_kwargs": {"a": {"path": "b.jsonl"}}},
            r"dataset_kwargs\['a'\]\['path'\]: train_dataset gives .* rows",
        ),
        ({"dataset_kwargs": {"a": {"id": "b"}}}, r"dataset_kwargs\['a'\]\['id'\]: train_dataset gives .* name"),
    ],
)
def test_what_is_given_twice_is_refused(changes, said):
    with pytest.raises(ConfigError, match=f"MSFTConfig .*{said}"):
        trainer(**changes)


def test_one_of_two_places_is_enough():
    assert trainer(method_kwargs={"max_epochs": 3}).config.method.max_epochs == 3
    own = trainer(scorer="exact_match", dataset_kwargs={"a": {"scorer": "loss"}})
    assert own.config.datasets[0].scorer.name == "loss", "one for all, and one of its own"


@pytest.mark.parametrize(("argument", "part"), [("eval_dataset", "validation"), ("test_dataset", "test")])
def test_further_keys_of_a_given_split_leave_it_the_given_one(argument, part):
    def split(given, own):
        made = trainer(splits={argument: given}, dataset_kwargs={"a": {part: own}})
        return getattr(made.config.datasets[0], part)

    assert split({"a": "items.jsonl"}, {"max_samples": 5}) == split({"a": "items.jsonl"}, None).model_copy(
        update={"max_samples": 5}
    )
    assert split({"a": "items.jsonl"}, {"where": {"n": 1}}).path.endswith("items.jsonl")
    with pytest.raises(ConfigError, match=rf"dataset_kwargs\['a'\]\['{part}'\]\['path'\]: {argument} gives the rows"):
        split({"a": "items.jsonl"}, {"path": "others.jsonl"})
    with pytest.raises(ConfigError, match=f"{part}.fraction: fraction carves .* Fix: use max_samples"):
        split({"a": "items.jsonl"}, {"fraction": 0.5})
    assert split({}, {"fraction": 0.5}).fraction == 0.5


def test_further_keys_of_a_split_of_a_column_leave_it_that_of_the_column():
    rows = [{**DATA["a"][0], "split": name} for name in ("train", "validation")]
    for own, path, where in (
        ({"max_samples": 1}, None, {"split": ("validation",)}),
        ({"path": "b.jsonl"}, "b.jsonl", None),
    ):
        made = trainer({"a": rows}, dataset_kwargs={"a": {"validation": own}}).config.datasets[0].validation
        assert (made.path and Path(made.path).name, made.where) == (path, where)


def test_all_values_are_answered_at_once():
    with pytest.raises(ConfigError) as raised:
        trainer(bf16="yes", logging_steps=0)
    assert str(raised.value).count("Fix:") == 2


def test_none_is_the_default_where_there_is_one():
    made = trainer(report_to=None, method=None, method_kwargs=None, dataset_kwargs=None, repeat=None)
    assert made.config == trainer().config
    assert trainer(report_to=["none"]).config == made.config
    assert trainer(output_dir=Path("run")).config == made.config


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (None, r"args: is missing. Fix: give MSFTConfig\(output_dir="),
        (TrainingArguments(output_dir="run"), r"args: found a TrainingArguments. Fix: give MSFTConfig.*from_trl.md"),
        ({"output_dir": "run"}, "args: found a dict"),
    ],
)
def test_other_arguments_than_an_msft_config(args, said):
    with pytest.raises(ConfigError, match=said):
        MSFTTrainer(model="model", args=args, train_dataset=DATA)


def test_arguments_of_other_trainers_are_answered_by_the_trainer_too():
    for name in INSTEAD_IN_TRAINER:
        with pytest.raises(ConfigError, match=f"MSFTTrainer {name}: unknown argument. Fix: "):
            MSFTTrainer(model="model", args=MSFTConfig(output_dir="run"), train_dataset=DATA, **{name: None})
    for given, said in (
        ({"tokenizer": None}, "tokenizer: unknown argument. Fix: give processing_class"),
        ({"learning_rate": 1.0}, r"unknown argument. Fix: give it in args: MSFTConfig\(learning_rate=...\)"),
        ({"evl_dataset": None}, "evl_dataset: unknown argument. Fix: did you mean 'eval_dataset'?"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            MSFTTrainer(model="model", args=MSFTConfig(output_dir="run"), train_dataset=DATA, **given)


NOT_FOR_SCRIPTS = re.compile(
    "(is|get)_.*(enabled|size|distributed|parallel)|.*_context_manager|floating_point_ops|store_flos|end|call_model_init|"
    "set_initial_training_values|loss_is_scaled_for_ga|create_accelerator_and_postprocess"
)


def test_members_of_other_trainers_are_answered():
    made = trainer()
    for name in {name for name in dir(Trainer) if not name.startswith("_")} - set(dir(MSFTTrainer)):
        if not NOT_FOR_SCRIPTS.fullmatch(name):
            with pytest.raises(AttributeError, match=f"^'MSFTTrainer' object has no attribute '{name}'. Fix: "):
                getattr(made, name)
    for name, said in (
        ("tokenizer", "use trainer.processing_class"),
        ("accelerator", "remove it; .*RANK"),
        ("push_to_hub", "run `msft export RUN --push-to-hub"),
    ):
        assert not hasattr(made, name)
        with pytest.raises(AttributeError, match=f"Fix: {said}"):
            getattr(made, name)
    with pytest.raises(AttributeError, match=r"^'MSFTTrainer' object has no attribute 'summry'$") as raised:
        made.summry  # noqa: B018
    assert (raised.value.name, raised.value.obj) == ("summry", made), "Python then guesses what was meant"


def test_a_subclass_has_no_method_that_is_never_called():
    with pytest.raises(ConfigError, match=r"Own compute_loss: a run never calls this method. Fix: remove it"):

        class Own(MSFTTrainer):
            def compute_loss(self, model, inputs):
                return 0


def test_an_error_within_a_property_is_not_hidden():
    class Own(MSFTTrainer):
        @property
        def longest(self):
            return self.config.lenght

    with pytest.raises(AttributeError, match="lenght"):
        Own("model", MSFTConfig(output_dir="run"), DATA).longest  # noqa: B018


def test_a_subclass_may_have_further_arguments():
    class Own(MSFTTrainer):
        def __init__(self, *given, extra, **named):
            super().__init__(*given, **named)
            self.extra = extra

    assert Own("model", MSFTConfig(output_dir="run"), DATA, extra=3).extra == 3


def test_every_argument_of_transformers_is_answered_without_a_guess():
    """A similar name is no help for an argument that exists: `eval_delay` is no misspelt `repeat`."""
    known = {each.name for each in fields(MSFTConfig)}
    for name in {each.name for each in fields(TrainingArguments)} - known:
        with pytest.raises(ConfigError, match=f"MSFTConfig {name}: unknown argument. Fix: ") as raised:
            MSFTConfig(output_dir="run", **{name: None})
        assert "did you mean" not in str(raised.value)


OF_SFT_CONFIG = (
    "activation_offloading", "assistant_only_loss", "chat_template_path", "completion_only_loss", "dataset_num_proc",
    "dataset_text_field", "eos_token", "eval_packing", "loss_type", "model_init_kwargs", "packing", "packing_strategy",
    "pad_to_multiple_of", "pad_token", "padding_free", "router_aux_loss_coef", "shuffle_dataset", "truncation_mode",
    "trust_remote_code",
)  # fmt: skip
"""The fields of TRL's SFTConfig (1.16) that transformers' arguments do not have, and MSFTConfig neither."""


def test_every_argument_of_trl_has_an_answer_of_its_own():
    others = ("torch_dtype", "dtype", "gradient_checkpointing_kwargs", "adam_beta2", "tf32", "lr_scheduler_kwargs")
    for name in (*OF_SFT_CONFIG, *others):
        with pytest.raises(ConfigError, match=f"MSFTConfig {name}: unknown argument. Fix: ") as raised:
            MSFTConfig(output_dir="run", **{name: None})
        assert not re.search("did you mean|use one of|nothing of this kind", str(raised.value)), raised.value
