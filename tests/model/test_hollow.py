from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_engine import tiny_folder, tiny_model
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from msft.core.errors import ModelError
from msft.model.folder import ModelSource
from msft.model.hollow import hollow
from msft.model.open import OpenModel, export_model, load_model


@pytest.mark.parametrize("peft", [None, {"r": 2, "target_modules": "all-linear"}])
@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("gpt2", True), ("gemma2", True)])
def test_rows_are_those_of_the_loaded_model(tmp_path: Path, kind: str, tied: bool, peft: dict[str, Any] | None) -> None:
    source = ModelSource(name_or_path=str(tiny_folder(tmp_path, kind, tied=tied)), peft=peft, seed=5)
    expected = load_model(source)
    model, names, rows = hollow(source)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in expected.named_parameters()]
    for (name, parameter), (_, loaded) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        assert parameter.requires_grad == loaded.requires_grad
        if name in names:
            assert parameter.is_meta and parameter.shape == loaded.shape
            assert torch.equal(rows.read(names[name], 1, 3, torch.float32), loaded[1:3])
        else:
            assert torch.equal(parameter, loaded), "an adapter's first values, from its seed"
    for (name, buffer), (_, loaded) in zip(model.named_buffers(), expected.named_buffers(), strict=True):
        assert torch.equal(buffer, loaded), name


def test_a_folder_whose_names_lack_the_prefix_of_the_whole_model(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    base = tiny_model().model
    base.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("LlamaModel", "LlamaForCausalLM"))
    _, names, rows = hollow(ModelSource(name_or_path=str(tmp_path)))
    assert torch.equal(rows.read("model.norm.weight", 0, 9, torch.float32), base.norm.weight[:9])
    assert "model.embed_tokens.weight" in names and rows.stored("model.norm.weight") == "norm.weight"


def test_another_head_than_the_configuration_says(tmp_path: Path) -> None:
    """A whole model keeps both, and says so to whoever reads what is handed over; a split one would drop the head."""
    folder = tiny_folder(tmp_path / "model", tied=False)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    source = ModelSource(name_or_path=str(folder))
    said = r"config\.json ties .*, but the files hold two different tensors.*training\.shard: false"
    with pytest.raises(ModelError, match=said):
        hollow(source)
    notes: list[str] = []
    opened = OpenModel.open(source)
    model: Any = opened.load(told=notes.append)
    assert "files hold another head" in notes[0] and model.lm_head.weight is not model.model.embed_tokens.weight
    export_model(model, opened.tokenizer, tmp_path / "final")
    assert json.loads((tmp_path / "final" / "config.json").read_text())["tie_word_embeddings"] is False

    # The same tensor twice is tied.
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base, names, _ = hollow(source)
    assert base.lm_head.weight is base.model.embed_tokens.weight and "lm_head.weight" not in names
    tied: Any = load_model(source)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight and tied.config.tie_word_embeddings


def test_weights_that_are_converted_as_they_are_loaded_are_refused(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    sizes = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be split.*transformers converts .*experts.*training\.shard: false"):
        hollow(ModelSource(name_or_path=str(tmp_path)))


@pytest.mark.parametrize(
    "asked", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa"}]
)
def test_adapters_that_begin_with_the_base_are_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    source = ModelSource(name_or_path=str(tiny_folder(tmp_path, tied=False)), peft={"r": 2, **asked})
    with pytest.raises(ModelError, match=rf"peft\.{next(iter(asked))}.*needs the base model's weights"):
        hollow(source)
    hollow(replace(source, peft={"r": 2, "target_modules": "all-linear"}))


def test_a_model_without_a_tensor_is_refused(tmp_path: Path) -> None:
    tiny_folder(tmp_path, tied=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    state = {name: tensor for name, tensor in model.state_dict().items() if "norm" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match="its files have no tensor model"):
        hollow(ModelSource(name_or_path=str(tmp_path)))


@pytest.mark.campaign
def test_no_architecture_is_read_wrong() -> None:
    """Each of those that transformers knows has the weights and buffers of the loaded model, or is refused."""
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import architectures

    read, refused = [], []
    for name in architectures.NAMES:
        model = architectures.small(name)
        if isinstance(model, str):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                model.save_pretrained(folder)
                expected: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            except ValueError:  # its files have another head
                continue
            try:
                made, names, rows = hollow(ModelSource(name_or_path=folder))
            except ModelError:
                refused.append(name)
                continue
            parameters, buffers = dict(expected.named_parameters()), dict(expected.named_buffers())
            assert parameters.keys() == {key for key, _ in made.named_parameters()}, name
            for key, parameter in parameters.items():
                assert torch.equal(rows.read(names[key], 0, len(parameter), torch.float32), parameter), (name, key)
            for key, buffer in made.named_buffers():
                assert torch.equal(buffer, buffers[key]), (name, key)
            read.append(name)
    assert len(read) > 110, refused
