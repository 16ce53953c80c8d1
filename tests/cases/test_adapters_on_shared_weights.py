"""An adapter on a weight that two layers share is refused, and a merged model is held against its adapter."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import make_model
from transformers import AutoConfig, AutoModelForCausalLM

from msft.core.errors import ModelError
from msft.model.adapters import fresh_adapter, write_merged

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}


def small(kind: str, tied: bool = True) -> object:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, tie_word_embeddings=tied, **SIZES))


@pytest.mark.parametrize(
    ("kind", "target", "other"),
    [
        ("llama", "lm_head", "model.embed_tokens"),
        ("llama", "embed_tokens", "lm_head"),
        ("qwen3", "lm_head", "model.embed_tokens"),
        ("gpt2", "wte", "lm_head"),
        ("opt", "lm_head", "model.decoder.embed_tokens"),
    ],
)
@pytest.mark.parametrize("on_meta", [False, True])
def test_it_is_refused_before_training(kind: str, target: str, other: str, on_meta: bool) -> None:
    """Also for a model without weights, as `msft check` opens it."""
    with torch.device("meta" if on_meta else "cpu"):
        model = small(kind)
        with pytest.raises(ModelError, match=rf"{target}, whose weight {other} shares.* leave {target} out"):
            fresh_adapter(model, {"r": 2, "target_modules": [target]}, 1)


@pytest.mark.parametrize(
    ("kind", "tied", "targets"),
    [
        ("llama", True, ["q_proj"]),
        ("llama", True, "all-linear"),
        ("llama", False, ["lm_head", "embed_tokens", "q_proj"]),
        ("gpt2", True, ["c_attn"]),
    ],
)
def test_what_is_not_shared_is_merged(kind: str, tied: bool, targets: list[str], tmp_path: Path) -> None:
    adapted = fresh_adapter(small(kind, tied), {"r": 2, "target_modules": targets}, 1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.3)
    for number, dtype in enumerate((torch.float32, torch.bfloat16)):
        folder = tmp_path / str(number)
        write_merged(copy.deepcopy(adapted), folder, lambda merged, to: merged.save_pretrained(to), dtype=dtype)
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_merge_that_changes_the_model_is_not_handed_over(target: str, tmp_path: Path) -> None:
    """Whatever the reason: here an adapter that was made without asking."""
    adapted = get_peft_model(small("llama"), LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight))
    with pytest.raises(ModelError, match=r"likelihoods differ by .* nats a token"):
        write_merged(adapted, tmp_path, lambda merged, to: merged.save_pretrained(to))


def test_the_command_line_refuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from msft.cli.main import main

    make_model(tmp_path / "model", tie_word_embeddings=True)
    rows = [f'{{"prompt": "{n}+{n}=", "completion": "{2 * n}"}}\n' for n in range(60)]
    (tmp_path / "sums.jsonl").write_text("".join(rows))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model: {{name_or_path: {tmp_path / 'model'}}}\ndatasets: [{{id: sums, path: {tmp_path / 'sums.jsonl'}}}]\n"
        f"peft: {{r: 2, target_modules: [lm_head, q_proj]}}\noutput: {tmp_path / 'run'}\n"
    )
    for key in ("target_modules", "modules_to_save"):
        for command in ("check", "train"):
            assert main([command, str(config), "--set", f"peft={{{key}: [lm_head]}}"]) == 2
            said = capsys.readouterr().err
            assert "merging would change both" in said and f"leave lm_head out of peft.{key}, or untie" in said
    assert not (tmp_path / "run").exists()
