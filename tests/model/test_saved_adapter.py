"""An adapter in a folder is read from a whole safetensors file, and fits its base in every tensor, or is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_engine import VOCABULARY, tiny_model

from msft.core.errors import ModelError
from msft.model.saved_adapter import ADAPTER, ADAPTER_CONFIG, with_adapter

Q = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
KINDS: dict[str, peft.PeftConfig] = {
    "LoRA": peft.LoraConfig(r=2, **Q),
    "DoRA": peft.LoraConfig(r=2, use_dora=True, **Q),
    "biases": peft.LoraConfig(r=2, bias="all", **Q),
    "rank by layer": peft.LoraConfig(r=2, rank_pattern={"layers.0.self_attn.q_proj": 4}, **Q),
    "a trained head": peft.LoraConfig(r=2, modules_to_save=["lm_head"], **Q),
    "trained tokens": peft.LoraConfig(r=2, trainable_token_indices=[3, 4], **Q),
    "embeddings": peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"]),
    "IA3": peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "VeRA": peft.VeraConfig(r=2, **Q),
    "AdaLoRA": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **Q),
    "LoHa": peft.LoHaConfig(r=2, **Q),
    "OFT": peft.OFTConfig(oft_block_size=4, **Q),
    "VB-LoRA": peft.VBLoRAConfig(r=2, num_vectors=8, vector_length=4, **Q),
    "a prompt": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "a prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


def saved(folder: Path, kind: str = "LoRA", **how: Any) -> torch.Tensor:
    """Writes an adapter with weights that are not its initial ones; what the model answers with it."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = peft.get_peft_model(tiny_model(tied=False), KINDS[kind])
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(str(folder), **how)
    return logits(model)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=torch.arange(1, 20)[None] % VOCABULARY).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_fits_the_base_that_it_was_saved_from(kind: str, tmp_path: Path) -> None:
    expected = saved(tmp_path, kind)
    found = logits(with_adapter(tiny_model(tied=False), tmp_path))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found[:, -19:], logits(tiny_model(tied=False)), atol=1e-2)


def test_embeddings_that_were_saved_with_an_adapter_are_no_misfit(tmp_path: Path) -> None:
    expected = saved(tmp_path, save_embedding_layers=True)
    assert "base_model.model.lm_head.weight" in load_file(tmp_path / ADAPTER)
    assert torch.allclose(logits(with_adapter(tiny_model(tied=False), tmp_path)), expected, atol=1e-5)


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()}


def one_more(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As of a deeper model."""
    return {**tensors, **{k: v.clone() for k, v in renamed(tensors).items()}}


def one_less(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "layers.0" not in name or "lora_B" not in name}


@pytest.mark.parametrize("kind", ["LoRA", "DoRA"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed, r"lacks weights that it needs on this base .*layers\.0\.self_attn\.q_proj\.lora_A"),
        (one_less, r"lacks weights that it needs on this base .*layers\.0\.self_attn\.q_proj\.lora_B"),
        (one_more, r"has weights that have no place in this base .*layers\.7\.self_attn\.q_proj\.lora_A"),
    ],
)
def test_an_adapter_that_fits_the_base_in_part_is_refused(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], said: str, kind: str, tmp_path: Path
) -> None:
    saved(tmp_path, kind)
    save_file(change(load_file(tmp_path / ADAPTER)), tmp_path / ADAPTER, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=said):
        with_adapter(tiny_model(tied=False), tmp_path)


def test_an_adapter_without_the_trained_head_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "a trained head")
    tensors = {name: tensor for name, tensor in load_file(tmp_path / ADAPTER).items() if "lm_head" not in name}
    save_file(tensors, tmp_path / ADAPTER, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not fit its base .*lm_head"):
        with_adapter(tiny_model(tied=False), tmp_path)


class RunsCode:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("the code in a pickled adapter was run",)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / ADAPTER), folder / "adapter_model.bin")
    (folder / ADAPTER).unlink()


def harmful(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(RunsCode()))
    (folder / ADAPTER).unlink()


def cut_off(folder: Path) -> None:
    (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:-10])


def missing(folder: Path) -> None:
    (folder / ADAPTER).unlink()


def of_others(folder: Path) -> None:
    """PEFT reads the adapters that it names, wherever they are."""
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "XLORA", "adapters": {"0": str(folder / "other")}}))


def not_json(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).write_text('{"peft_type": "LORA"')


def of_no_kind(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).write_text('{"peft_type": "MAGIC"}')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (pickled, r"adapter_model\.bin: the adapter's weights are pickled, which can run any code when read"),
        (harmful, r"adapter_model\.bin: the adapter's weights are pickled, which can run any code when read"),
        (cut_off, r"adapter_model\.safetensors: the file has \d+ bytes, but its header says"),
        (missing, r"adapter_model\.safetensors: the file is missing"),
        (of_others, "made of adapters in other places"),
        (not_json, "the adapter's settings cannot be read"),
        (of_no_kind, "the adapter's settings cannot be read"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_answered_with_why(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=said) as refused:
        with_adapter(tiny_model(tied=False), tmp_path)
    assert "Fix: " in str(refused.value) and "\n" not in str(refused.value)
