"""What a script for TRL leaves out or simplifies: the tokenizer of a model object, and one data set without a name."""

from __future__ import annotations

import copy

import datasets
import pytest
from job import make_model
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Olmo2Config,
    Olmo2ForCausalLM,
)

from msft import MSFTConfig, MSFTTrainer
from msft.core.errors import ConfigError, DataError, ModelError

ROWS = [{"prompt": f"{n}+{n}=", "completion": str(2 * n), "source": "even" if n % 2 else "odd"} for n in range(60)]
TRAIN, HELD = datasets.Dataset.from_list(ROWS[:40]), datasets.Dataset.from_list(ROWS[40:])

SMALL = {
    "vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "pad_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defaults")
    make_model(folder / "model")
    return folder


def trainer(place, model="model", into="run", train=TRAIN, *, settings=None, **given):
    args = {"output_dir": str(place / into), "method": "sft", "num_train_epochs": 0.5, "max_length": 64}
    model = str(place / model) if isinstance(model, str) else model
    return MSFTTrainer(model, MSFTConfig(**args, leaks="warn", **(settings or {})), train, **given)


def test_the_tokenizer_of_a_model_object_is_that_of_what_it_was_loaded_from(place):
    model = AutoModelForCausalLM.from_pretrained(place / "model")
    trainer(place, model, "own tokenizer").train()
    kept = AutoTokenizer.from_pretrained(place / "own tokenizer" / "final")
    assert kept.get_vocab() == AutoTokenizer.from_pretrained(place / "model").get_vocab()


@pytest.mark.parametrize("named", [True, False])
def test_an_adapter_without_targets_is_the_one_of_peft(place, named):
    peft = LoraConfig(r=2, task_type="CAUSAL_LM")
    model = "model" if named else AutoModelForCausalLM.from_pretrained(place / "model")
    made = trainer(place, model, f"default targets {named}", peft_config=peft)
    expected = get_peft_model(AutoModelForCausalLM.from_pretrained(place / "model"), copy.deepcopy(peft))
    assert peft.target_modules is None, "the script's own object"
    assert (
        set(made.config.peft.target_modules) == expected.peft_config["default"].target_modules == {"q_proj", "v_proj"}
    )
    assert (
        trainer(place, peft_config=LoraConfig(target_modules="all-linear")).config.peft.target_modules == "all-linear"
    )


def test_an_adapter_without_targets_for_which_peft_has_none(place):
    made = Olmo2ForCausalLM(Olmo2Config(**SMALL))
    with pytest.raises(ConfigError, match=r"peft_config target_modules: found None, .* for olmo2\. Fix: give their"):
        trainer(place, made, processing_class=AutoTokenizer.from_pretrained(place / "model"), peft_config=LoraConfig())
    with pytest.raises(ConfigError, match=r"peft\.target_modules: found \[\]"):
        trainer(place, peft_config=LoraConfig(target_modules=[]))
    with pytest.raises(ModelError, match="the model's configuration cannot be used"):
        trainer(place, "nowhere", peft_config=LoraConfig())


def test_a_tokenizer_that_is_not_there_is_asked_for(place):
    """Of a folder without one, transformers makes a tokenizer of special tokens only."""
    made = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8))
    made.save_pretrained(place / "bare")
    assert len(AutoTokenizer.from_pretrained(place / "bare")) == 1, "else this tests nothing"
    for model in (made, GPT2LMHeadModel.from_pretrained(place / "bare")):
        with pytest.raises(ModelError, match=r"processing_class: is missing.*Fix: give the model's tokenizer"):
            trainer(place, model)


def test_a_single_data_set_is_the_sub_dataset_train(place):
    one = trainer(place, into="one", eval_dataset=HELD, test_dataset=HELD)
    named = trainer(place, into="one", train={"train": TRAIN}, eval_dataset={"train": HELD}, test_dataset=HELD)
    assert one.config == named.config and [each.id for each in one.config.datasets] == ["train"]
    assert set(one.train().metrics) == {"test_train", "base_test_train"}
    assert trainer(place, train={"sums": TRAIN}, eval_dataset=HELD).config.datasets[0].validation.path is not None
    with pytest.raises(DataError, match=r"eval_dataset\['a'\]: there is no such sub-dataset. Fix: .*: train"):
        trainer(place, eval_dataset={"a": HELD})
    with pytest.raises(DataError, match=r"eval_dataset: found a single data set, for several.*: a, b"):
        trainer(place, train={"a": TRAIN, "b": TRAIN}, eval_dataset=HELD)
    with pytest.raises(DataError, match="train_dataset: is missing"):
        trainer(place, train=None)
    with pytest.raises(DataError, match="train_dataset: found a DatasetDict of splits"):
        trainer(place, train=datasets.DatasetDict(train=TRAIN, test=HELD))


def test_a_column_splits_a_single_data_set(place):
    """As from_trl.md says."""
    by_source = {"dataset_kwargs": {"train": {"split_by": "source"}}}
    found = trainer(place, into="split", eval_dataset=HELD, settings=by_source).train().metrics
    assert len(found) == 4 and all("odd" in name or "even" in name for name in found)
