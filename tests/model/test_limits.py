"""What a model cannot do is said before a run: more positions than it has, activations that it does not recompute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job import CONFIG, make_data
from small_models import make_model
from tokenizers_for_tests import tokenizer

from msft.cli.fitting import fit
from msft.cli.machines import Machine
from msft.cli.main import main
from msft.config.reader import load
from msft.model.open import OpenModel
from msft.run.job import model_source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the data of a job, and no model yet."""
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path)
    return tmp_path


def job(folder: Path, kind: str, more: str = "", **shape: Any) -> Path:
    make_model(folder / "model", kind, tokenizer(), **shape)
    config = folder / "config.yaml"
    given = CONFIG.format(method="sft", more=", max_epochs: 1", output="run")
    config.write_text(given.replace("learning_rate: 0.01", f"learning_rate: 0.01{more}"))
    return config


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
