"""What is passed as an object is trained as it is, or refused."""

from __future__ import annotations

import re
import types
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from job import make_model
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from msft import MSFTConfig, MSFTTrainer
from msft.api.inputs import Inputs
from msft.core.errors import DataError, ModelError

ROWS = [{"prompt": f"{n}+{n}=", "completion": str(2 * n), "note": f"n{n}"} for n in range(40)]
LORA = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passed")
    make_model(folder / "model")
    return folder


def trainer(place, model, rows=ROWS, **given):
    args = MSFTConfig(
        output_dir=str(place / given.pop("into", "run")), method="sft", num_train_epochs=1, max_length=64, leaks="warn"
    )
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    return MSFTTrainer(model=model, args=args, train_dataset={"a": rows}, processing_class=tokenizer, **given)


def load(place, kind=AutoModelForCausalLM, **how):
    return kind.from_pretrained(place / "model", **how)


def test_frozen_parameters_are_refused_unless_an_adapter_is_trained(place):
    model = load(place)
    model.model.layers[0].requires_grad_(False)
    with pytest.raises(ModelError, match=r"frozen parameters \(\d+: model.layers.0.\S+, .*unfreeze them .*peft_config"):
        trainer(place, model)
    trainer(place, model, peft_config=LORA)
    trainer(place, model.requires_grad_(True))
    assert not (place / "run").exists()


class Own(LlamaForCausalLM):
    """Code that a folder does not hold."""


def replaced(model):
    model.model.norm.forward = types.MethodType(lambda self, x: x, model.model.norm)
    return model


def with_own_layer(model):
    model.lm_head = torch.nn.Sequential(model.lm_head)
    return model


def with_hook(model):
    model.model.register_forward_hook(lambda module, inputs, output: None)
    return model


def with_gradient_hook(model):
    model.lm_head.weight.register_hook(lambda gradient: gradient * 0)
    return model


def with_adapter(model):
    model.add_adapter(LORA)
    return model


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda model: Own(model.config), r"found a Own \(\S+\), but a run would load a LlamaForCausalLM \("),
        (replaced, "found a replaced forward of model.norm, which a run would not call"),
        (with_own_layer, r"found Sequential \(\S+\) as lm_head, where a run would load Linear"),
        (with_hook, "found a forward hook on model, which"),
        (with_gradient_hook, r"found a gradient hook on \S+weight, which"),
        (with_adapter, r"found Linear \(peft.*an adapter: as peft_config"),
        (torch.compile, "found an OptimizedModule. Fix: give a causal language model of transformers.*torch_compile"),
        (lambda model: model.model, "found a LlamaModel .*but a run would load a LlamaForCausalLM"),
    ],
)
def test_code_that_a_folder_does_not_hold_is_refused(place, changed, said):
    with pytest.raises(ModelError, match=said):
        trainer(place, changed(load(place)))


def test_what_transformers_itself_puts_on_a_model_is_no_code_of_ones_own(place):
    model = load(place)
    model.enable_input_require_grads()
    model(torch.ones(1, 2, dtype=torch.long), output_hidden_states=True, output_attentions=True)
    assert any(module._forward_hooks for module in model.modules()), "else this tests nothing"
    trainer(place, model)


def test_another_attention_than_the_default_is_noted(place, capsys):
    assert trainer(place, load(place))._inputs.notes == []
    trainer(place, load(place, attn_implementation="eager"), into="eager").train()
    said = " ".join(capsys.readouterr().err.split())
    assert "the model was passed with attn_implementation='eager', which a run does not keep" in said


@pytest.mark.parametrize("model", ["model", None])
def test_what_is_no_tokenizer_is_refused_before_anything_is_written(place, model):
    args = MSFTConfig(output_dir=str(place / "refused"))
    fast = AutoTokenizer.from_pretrained(place / "model").backend_tokenizer
    for given, said in (
        (
            str(place / "model"),
            f"found a str. Fix: give a tokenizer, AutoTokenizer.from_pretrained('{place}/model'), or",
        ),
        (place / "model", f"found a PosixPath. Fix: give a tokenizer, AutoTokenizer.from_pretrained('{place}/model')"),
        (fast, r"found a Tokenizer. Fix: give a tokenizer, AutoTokenizer.from_pretrained(...)"),
    ):
        with pytest.raises(ModelError, match=re.escape(f"processing_class: {said}")):
            MSFTTrainer(model or load(place), args, {"a": ROWS}, processing_class=given)


def written(place, rows):
    inputs = Inputs(place / "inputs", "model", None, {"train": {"a": rows}, "validation": None, "test": None})
    inputs.check()
    inputs.write()
    return pq.read_table(place / "inputs" / "00-train.parquet").to_pylist()


def test_a_transform_is_refused(tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    with pytest.raises(DataError, match=r"train_dataset\['a'\]: found a data set with a transform .*map\(function"):
        written(tmp_path, rows.with_transform(lambda batch: batch))
    doubled = rows.map(lambda row: {"completion": row["completion"] * 2})
    assert written(tmp_path, doubled)[3] == {**ROWS[3], "completion": "66"}


@pytest.mark.parametrize("form", [None, "torch", "numpy", "arrow"])
def test_rows_are_those_that_the_data_set_shows(tmp_path, form):
    rows = datasets.Dataset.from_list(ROWS).filter(lambda row: row["note"] != "n0").shuffle(seed=1).select(range(5, 20))
    shown = [rows[k] for k in range(len(rows))]
    assert written(tmp_path, rows.with_format(form)) == shown and shown != ROWS[5:20]
    some = rows.with_format(form, columns=["prompt", "completion"])
    assert written(tmp_path, some) == [{k: row[k] for k in ("prompt", "completion")} for row in shown]
    every = rows.with_format(form, columns=["prompt"], output_all_columns=True)
    assert written(tmp_path, every) == shown


def test_splits_are_no_sub_datasets(tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    with pytest.raises(DataError, match=r"train_dataset: found a DatasetDict of splits \(test, train\).*eval_dataset"):
        given = datasets.DatasetDict(train=rows, test=rows)
        Inputs(tmp_path, "model", None, {"train": given, "validation": None, "test": None}).check()
    named = datasets.DatasetDict(copy=rows, double=rows)
    Inputs(tmp_path, "model", None, {"train": named, "validation": named, "test": None}).check()


def test_paths_may_be_paths(place):
    def config(kind):
        args = MSFTConfig(output_dir=kind(place / "run"))
        data, items = ({"a": kind(place / file)} for file in ("a.jsonl", "b.jsonl"))
        return MSFTTrainer(model=kind(place / "model"), args=args, train_dataset=data, eval_dataset=items).config

    assert config(Path) == config(str)


def test_a_type_that_a_file_cannot_hold_is_named(tmp_path):
    empty = [{**ROWS[0], "more": {}}]
    for rows in (empty, datasets.Dataset.from_list(empty)):
        with pytest.raises(
            DataError, match=r"train rows of a: the rows cannot be written \(.*'?more.*leave out the column"
        ):
            written(tmp_path, rows)
