"""An adapter names the commit of the hub's base that it was trained on, so that everybody loads it on that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from job import make_job
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from msft.cli.main import main
from msft.model.folder import ModelSource
from msft.model.hollow import hollow
from msft.model.open import load_model
from msft.record.run_folder import RunFolder
from msft.run.hand_over import Finished

NAME, COMMITS = "someone/tiny", {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job on revision v1 of a model in the hub's cache, of which `main` has other weights."""
    made = make_job(tmp_path, "sft", ", max_epochs: 1")
    cache = tmp_path / "hub" / "models--someone--tiny"
    (cache / "refs").mkdir(parents=True)
    for revision, commit in COMMITS.items():
        shutil.copytree(tmp_path / "model", cache / "snapshots" / commit)
        (cache / "refs" / revision).write_text(commit)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for weight in other.parameters():
        weight.data.mul_(1.5)
    other.save_pretrained(cache / "snapshots" / COMMITS["main"])
    for module in ("huggingface_hub.constants", "transformers.utils.hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"))
    given = made.read_text().replace("{name_or_path: model}", f"{{name_or_path: {NAME}, revision: v1}}")
    made.write_text(given + "peft: {r: 2, target_modules: [q_proj]}\n")
    return made


def test_an_adapter_is_loaded_on_the_revision_that_it_was_trained_on(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    final = tmp_path / "run" / "final"
    assert main(["train", str(config)]) == 0
    named = json.loads((final / "adapter_config.json").read_text())
    assert (named["base_model_name_or_path"], named["revision"]) == (NAME, COMMITS["v1"])
    ids = torch.arange(2, 30)[None]
    ours = Finished.read(RunFolder(tmp_path / "run")).model().eval()
    with torch.no_grad():
        expected = ours(input_ids=ids).logits
        theirs = AutoPeftModelForCausalLM.from_pretrained(final).eval()
        assert torch.equal(theirs(input_ids=ids).logits, expected)
        assert main(["export", "run", "--merge", "--output", "merged"]) == 0
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-5)

    capsys.readouterr()
    assert main(["eval", "run", "--split", "validation", "--json"]) == 0
    of_run = capsys.readouterr().out
    # The adapter alone, also with a configuration that names no revision of its base.
    config.write_text(config.read_text().replace(", revision: v1", ""))
    assert main(["eval", str(final), "--config", str(config), "--split", "validation", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == json.loads(of_run)["scores"]


def test_an_adapter_names_its_base_whoever_makes_it(config: Path, tmp_path: Path) -> None:
    peft = {"r": 2, "target_modules": ["q_proj"]}
    hub = ModelSource(name_or_path=NAME, peft=peft)
    for made in (load_model(hub), hollow(hub)[0]):
        found = made.peft_config["default"]  # type: ignore[union-attr]
        assert (found.base_model_name_or_path, found.revision) == (NAME, COMMITS["main"])
    folder = ModelSource(name_or_path=str(tmp_path / "model"), peft=peft)
    assert load_model(folder).peft_config["default"].revision is None  # type: ignore[union-attr]


def test_an_adapter_that_lies_beside_a_model_on_the_hub_is_not_loaded_with_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a folder. transformers would put it on the model, a pickled one too."""
    monkeypatch.chdir(tmp_path)
    score = ["eval", NAME, "--config", str(config), "--split", "validation"]
    assert main(score) == 0
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / COMMITS["v1"]
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), LoraConfig(r=2))
    model.save_pretrained(tmp_path / "adapter")
    torch.save(load_file(tmp_path / "adapter" / "adapter_model.safetensors"), snapshot / "adapter_model.bin")
    shutil.copy(tmp_path / "adapter" / "adapter_config.json", snapshot)
    capsys.readouterr()
    assert main(score) == 2
    assert "holds an adapter" in capsys.readouterr().err
