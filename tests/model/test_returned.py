"""What a configuration has a model return beside its logits: not in a run, but in what it hands over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_engine import segment, tiny_engine, tiny_folder
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from msft.engine.torch_engine import TorchEngine
from msft.model.returned import ROUTER


def folder_with(path: Path, **fields: object) -> Path:
    """A small model whose config.json has these fields."""
    folder = tiny_folder(path)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}), encoding="utf-8")
    return folder


def trained(folder: Path, path: Path) -> tuple[TorchEngine, Path]:
    """The engine that has trained it a few steps, and what it hands over."""
    engine, _ = tiny_engine(folder, path / "snapshots")
    engine.run(segment(0, 2), 1)
    engine.export(1, path / "final")
    return engine, path / "final"


@pytest.mark.parametrize("asked", [{"output_attentions": True}, {"output_hidden_states": True}, {"return_dict": False}])
def test_a_run_returns_logits_only_and_hands_over_the_configuration(asked: dict[str, bool], tmp_path: Path) -> None:
    """With `output_attentions` it was an error when the final model was written, after the run."""
    _, plain = trained(tiny_folder(tmp_path / "plain"), tmp_path / "a")
    engine, found = trained(folder_with(tmp_path / "asked", **asked), tmp_path / "b")
    said, before = (json.loads((each / "config.json").read_text()) for each in (found, plain))
    assert said == {**before, **asked} and "router" not in engine.light
    one, two = (load_file(each / "model.safetensors") for each in (found, plain))
    assert all(torch.equal(one[name], two[name]) for name in two)
    AutoModelForCausalLM.from_pretrained(found)


def test_a_router_is_trained_without_its_own_loss_and_a_note_says_so(tmp_path: Path) -> None:
    """Its micro-batches were padded, because "rows would touch"."""
    folder = tiny_folder(tmp_path / "model")
    config = MixtralConfig(
        vocab_size=48, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, num_local_experts=4, output_router_logits=True,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        MixtralForCausalLM(config).save_pretrained(folder)
    engine, found = trained(folder, tmp_path)
    assert ROUTER in engine.light and "padded" not in engine.light
    assert json.loads((found / "config.json").read_text())["output_router_logits"] is True
