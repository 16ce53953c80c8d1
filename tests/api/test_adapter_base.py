"""An adapter trained on a model object names as its base what the object was proven to be."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from job import make_model
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft import MSFTConfig, MSFTTrainer
from msft.api.adapter_base import name_base
from msft.cli.main import main
from msft.config.reader import load
from msft.model.folder import COPY_OF, ModelSource
from msft.run.evaluate import _loaded
from msft.run.hand_over import _others_have

ROWS = [{"prompt": f"{n}+{n}=", "completion": str(2 * n)} for n in range(40)]
OURS = "{{ messages[0].content }}"
"""A chat template that the original does not have."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_model(folder / "model")
    return folder


def loaded(place, **how):
    return AutoModelForCausalLM.from_pretrained(place / "model", **how)


def trained(place, model, into):
    args = MSFTConfig(
        output_dir=str(place / into), method="sft", num_train_epochs=1, max_length=64, learning_rate=0.01, leaks="warn"
    )
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    tokenizer.chat_template = OURS
    trainer = MSFTTrainer(
        model,
        args,
        {"a": ROWS},
        processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )
    trainer.train()
    return trainer


def base_in(folder):
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_the_adapter_names_what_the_object_was_loaded_from(place, capsys):
    trainer = trained(place, loaded(place), "same")
    assert "as its base, because" not in capsys.readouterr().err
    assert base_in(place / "same" / "final") == str(place / "model")
    trainer.save_model(place / "saved")
    assert main(["export", str(place / "same"), "--output", str(place / "exported")]) == 0
    assert base_in(place / "saved") == base_in(place / "exported") == str(place / "model")
    card = (place / "exported" / "README.md").read_text()
    assert "# model, fine-tuned with" in card and str(place) not in card

    # Scored by the configuration of the run, it has the tokenizer of its training, which the original has not.
    _, tokenizer = _loaded(load(place / "same" / "config.yaml"), str(place / "saved"))
    assert tokenizer.chat_template == OURS

    # The run itself keeps to its copy: what `model` gives does not follow later changes of the original.
    model = trainer.model
    assert isinstance(model, PeftModel)
    text = trainer.processing_class("1+1=", return_tensors="pt")
    said = model(**text).logits
    elsewhere = AutoPeftModelForCausalLM.from_pretrained(place / "saved")
    assert torch.equal(said, elsewhere(**text).logits)
    merged = model.merge_and_unload()
    assert not isinstance(merged, PeftModel) and torch.allclose(merged(**text).logits, said, atol=1e-5)


def test_an_object_that_changed_since_has_its_copy_as_base_and_the_run_says_so(place, capsys):
    model = loaded(place)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    trained(place, model, "changed")
    copy = place / "changed" / "inputs" / "model"
    said = " ".join(capsys.readouterr().err.split())
    assert f"The adapter will name the copy of the model in this run, {copy}, as its base, because the model's" in said
    assert "(model.norm.weight)" in said
    assert base_in(place / "changed" / "final") == str(copy)


def smaller(model):
    model.resize_token_embeddings(model.config.vocab_size - 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: None, None),
        (lambda model: setattr(model.config, "use_cache", False), None),
        (lambda model: model.to(torch.bfloat16), "weights differ"),
        (lambda model: setattr(model.config, "rms_norm_eps", 0.1), r"configuration differs .*\(rms_norm_eps\)"),
        (smaller, r"configuration differs .*\(vocab_size\)"),
        (lambda model: setattr(model.config, "_name_or_path", ""), "not loaded from a folder or the hub"),
        (lambda model: setattr(model.config, "_name_or_path", "nobody/nothing"), "nobody/nothing.* cannot be loaded"),
    ],
)
def test_only_equal_weights_and_settings_are_a_proof(place, tmp_path, change, why):
    model = loaded(place)
    change(model)
    (tmp_path / COPY_OF).write_text("of a run that was begun here before")
    found = name_base(model, tmp_path)
    assert (found is None) == (tmp_path / COPY_OF).exists() == (why is None)
    if why is not None:
        assert re.search(why, found)


def test_a_name_on_the_hub_stays_a_name(place, tmp_path, monkeypatch):
    """As the hub's cache keeps it; of another revision, the name says nothing."""
    cache = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(place / "model", cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = AutoModelForCausalLM.from_pretrained("someone/tiny")
    assert name_base(model, tmp_path) is None
    assert json.loads((tmp_path / COPY_OF).read_text()) == {"name_or_path": "someone/tiny", "revision": "abc"}
    copy = ModelSource(name_or_path=str(tmp_path))
    assert (copy.base, copy.base_revision) == ("someone/tiny", "abc") and _others_have(copy)
    assert not _others_have(ModelSource(name_or_path=str(place / "model")))
    (cache / "refs" / "main").rename(cache / "refs" / "v1")
    (tmp_path / COPY_OF).unlink()
    assert "someone/tiny, which the model was loaded from, cannot be loaded again" in name_base(model, tmp_path)
    assert not (tmp_path / COPY_OF).exists()
