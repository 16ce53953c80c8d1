"""A run on a base in 4 bits by the command line: trained, resumed, scored, loaded by its card, and merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job import make_job
from test_export import logits, snippet
from transformers import AutoModelForCausalLM

from msft.cli.main import main
from msft.model.quantised import prepare, quantised_layers

pytest.importorskip("bitsandbytes")


def test_a_base_in_4_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_job(tmp_path, "sft", ", max_epochs: 1, select: last", output="run")
    sets = ["peft={r: 4}", "training.learning_rate=0.3", "model.quantize=nf4", "training.optimizer=adamw_8bit"]
    given = [part for one in sets for part in ("--set", one)]
    assert main(["check", str(config), *given]) == 0
    assert "that are quantised" in capsys.readouterr().out
    assert main(["train", str(config), *given]) == 0
    assert "run/final', quantization_config=bits)" in capsys.readouterr().out
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["libraries"]["bitsandbytes"], "the result depends on it"
    capsys.readouterr()
    assert main(["train", str(config), *given, "--set", "model.quantize=int8", "--resume"]) == 2
    assert "model.quantize was 'nf4', is now 'int8'" in capsys.readouterr().err
    assert main(["train", str(config), *given, "--resume"]) == 0

    capsys.readouterr()
    assert main(["eval", "run", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["macro"] is not None
    known = json.loads((tmp_path / "run" / "summary.json").read_text())["validation"]
    assert scored["scores"]["copy"]["report"] == known["copy"]

    found: dict[str, object] = {}
    monkeypatch.chdir(tmp_path / "run" / "final")
    exec(snippet(Path()).partition("prompt =")[0], found)
    prepare(found["model"])  # type: ignore[type-var]  # where a CPU has bf16, bitsandbytes' kernel fits wider layers only
    trained = logits(found["model"], found["tokenizer"])  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", "run", "--merge", "--output", "merged"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "those of the adapter on the base in nf4 (model.quantize)" in said
    assert said.endswith("To score this one: msft eval merged --config run/config.yaml")
    merged = logits(AutoModelForCausalLM.from_pretrained("merged"), found["tokenizer"])  # type: ignore[arg-type]
    assert any(quantised_layers(found["model"])) and 0 < float((merged - trained).abs().mean()) < 0.1  # type: ignore[arg-type]
    assert "was not scored" in (tmp_path / "merged" / "README.md").read_text()
    assert main(["eval", "merged", "--config", "run/config.yaml"]) == 0
