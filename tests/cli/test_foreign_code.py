"""Trust in the code of one model (`model.trust_remote_code`) is trust in no other that `msft eval` is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from job import make_job
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from msft.cli.main import main

CODE = """\
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({mark!r}).touch()

class MineConfig(LlamaConfig):
    model_type = "mine"

class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


def with_code(model: Path, folder: Path) -> Path:
    """A copy of the model with code of its own; the file that tells that this was run."""
    shutil.copytree(model, folder)
    mark = folder.with_name(f"{folder.name} ran")
    (folder / "mine.py").write_text(CODE.format(mark=str(mark)))
    settings = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"}
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "mine", "auto_map": auto_map}))
    return mark


def test_trust_in_one_models_code_is_trust_in_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("dynamic_module_utils", "utils.hub"):
        monkeypatch.setattr(f"transformers.{module}.HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = make_job(tmp_path)
    adapter = get_peft_model(AutoModelForCausalLM.from_pretrained("model"), LoraConfig(r=2, task_type="CAUSAL_LM"))
    own, other = (with_code(tmp_path / "model", tmp_path / name) for name in ("mine", "other"))
    for base in ("mine", "other"):
        adapter.peft_config["default"].base_model_name_or_path = str(tmp_path / base)
        adapter.save_pretrained(f"on {base}")
    trusting = "{name_or_path: mine, trust_remote_code: true, revision: the-commit}"
    config.write_text(config.read_text().replace("{name_or_path: model}", trusting))
    scored = ["eval", "--split", "validation", "--config", str(config)]

    for model in ("other", "on other"):
        assert main([*scored, model]) == 2
        said = capsys.readouterr().err
        assert "auto_map asks to run code that came with the model" in said
        assert "if you trust it, name this folder as model.name_or_path, with model.trust_remote_code: true" in said
    assert not other.exists()
    for model in ("./mine", "on mine", "model"):
        assert main([*scored, model]) == 0
    assert own.exists() and not other.exists()
    assert main([*scored, "other", "--set", "model.name_or_path=other"]) == 0
    assert other.exists()
