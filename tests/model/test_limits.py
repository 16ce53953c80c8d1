"""What a model cannot do is said before a run: more positions than it has, activations that it does not recompute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from job import CONFIG, make_data
from tokenizers_for_tests import tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from msft.cli.fitting import fit
from msft.cli.machines import Machine
from msft.cli.main import main
from msft.config.reader import load
from msft.model.open import OpenModel
from msft.run.job import model_source

WITHOUT: dict[str, Any] = dict.fromkeys(
    ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
     "max_position_embeddings"), None,
)  # fmt: skip
"""Not passed to the configuration: it has other names for them."""
WHISPER = {
    "d_model": 32, "decoder_attention_heads": 4, "encoder_attention_heads": 4, "decoder_ffn_dim": 64,
    "encoder_ffn_dim": 64, "suppress_tokens": None, "begin_suppress_tokens": None, "pad_token_id": 0,
    "decoder_start_token_id": 1,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the data of a job, and no model yet."""
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path)
    return tmp_path


def job(folder: Path, kind: str, more: str = "", **shape: Any) -> Path:
    words = tokenizer()
    usual = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    }  # fmt: skip
    given = {key: value for key, value in (usual | shape).items() if value is not None}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given))
    made.save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    config = folder / "config.yaml"
    written = CONFIG.format(method="sft", more=", max_epochs: 1", output="run")
    config.write_text(written.replace("learning_rate: 0.01", f"learning_rate: 0.01{more}"))
    return config


def learned(row: int) -> str:
    """`double` rows of at most `row` tokens, the end of the answer included."""
    lines = ({"question": "1" * (row - 3 - n % 3), "answer": str(n % 10)} for n in range(40))
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("kind", "shape", "most"),
    [
        ("gpt2", {"max_position_embeddings": 40}, 40),
        # Positions begin after that of padding.
        ("roberta", {"max_position_embeddings": 42, "is_decoder": True, "pad_token_id": 1}, 40),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 1, "max_seq_len": 40, **WITHOUT}, 40),
        ("whisper", {"max_target_positions": 40, "decoder_layers": 1, "encoder_layers": 1, **WHISPER, **WITHOUT}, 40),
    ],
)  # fmt: skip
def test_a_row_may_have_as_many_tokens_as_the_model_has_positions(
    folder: Path, kind: str, shape: dict[str, Any], most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where `data.max_length` is more: answers for people, and what a run tries at its start, end there too."""
    config = job(folder, kind, **shape)
    (folder / "double.jsonl").write_text(learned(most))
    assert main(["train", str(config)]) == 0
    capsys.readouterr()
    (folder / "double.jsonl").write_text(learned(most + 1))
    assert main(["check", str(config)]) == 2
    said = f"has {most + 1} tokens, the model has {most} positions. Fix: set data.max_length to at most {most}"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_model_without_gradient_checkpointing(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = job(folder, "openai-gpt", ", gradient_checkpointing: true")
    assert main([command, str(config)]) == 2
    said = "training.gradient_checkpointing: found true, but OpenAIGPTLMHeadModel of transformers has no"
    assert said in capsys.readouterr().err and not (folder / "run").exists()


@pytest.mark.parametrize(("kind", "change"), [("llama", "training.gradient_checkpointing=true"), ("openai-gpt", None)])
def test_gradient_checkpointing_is_proposed_where_a_model_has_it(folder: Path, kind: str, change: str | None) -> None:
    config = load(job(folder, kind))
    found = fit(OpenModel.open(model_source(config)), config, Machine(name="card", count=1, card=27 * 10**6), 64)
    assert not found.plan.fits
    assert (None if found.proposal is None else found.proposal.changes) == (None if change is None else (change,))
