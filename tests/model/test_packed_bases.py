"""A model that another library than bitsandbytes quantised: what stays packed cannot be trained in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from job import make_job
from safetensors.torch import load_file, save_file
from transformers.integrations.bitnet import pack_weights

from msft.cli.main import main
from msft.core.errors import ModelError
from msft.model.folder import ModelSource
from msft.model.open import OpenModel, load_model, load_tokenizer

BITNET = {"quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "offline"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_job(tmp_path, "sft", ", max_epochs: 1")


def stored(model: Path, how: dict[str, Any]) -> None:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": how}))


def pack(model: Path) -> None:
    """As BitNet stores linear layers: four weights of -1, 0 and 1 in a byte."""
    made: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        made[name] = tensor
        if name.endswith("proj.weight"):
            scale = 1 / tensor.abs().mean()
            made[name] = pack_weights((tensor * scale).round().clamp(-1, 1))
            made[f"{name}_scale"] = scale.reshape(1)
    save_file(made, model / "model.safetensors", metadata={"format": "pt"})
    stored(model, BITNET)


def test_full_training_of_packed_weights_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = config.parent / "model"
    plain = OpenModel.open(ModelSource(name_or_path=str(model)))
    pack(model)
    for command in ("check", "train"):
        assert main([command, str(config)]) == 2
        assert "weights are packed (bitnet) and cannot be trained (model.layers.0.self_attn" in capsys.readouterr().err
    # Where the library is known only once the weights are there.
    with pytest.raises(ModelError, match=r"7 of its 11 weights are packed \(bitnet\).*Fix: add an adapter"):
        OpenModel(plain.source, plain.tokenizer, plain.skeleton).load()
    # Such a model can be scored.
    source = ModelSource(name_or_path=str(model))
    assert load_model(source) is not None and load_tokenizer(source) is not None


@pytest.mark.parametrize("how", [{"quant_method": "mxfp4"}, BITNET | {"quantization_mode": "online"}])
def test_what_is_unpacked_as_it_is_loaded_is_trained(config: Path, how: dict[str, Any]) -> None:
    """Also what its library trains itself: BitNet online."""
    if how["quant_method"] == "bitnet":
        how = how | {"linear_class": "autobitlinear"}
    stored(config.parent / "model", how)
    opened = OpenModel.open(ModelSource(name_or_path=str(config.parent / "model")))
    assert all(weight.requires_grad for weight in opened.load().parameters())
