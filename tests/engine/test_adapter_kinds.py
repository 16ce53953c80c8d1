"""Kinds of adapters: trained, rolled back, trained again bit for bit, handed over and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_engine import export_merged, same, segment, tiny_data, tiny_engine, tiny_folder
from transformers import AutoModelForCausalLM

from msft.core.errors import ModelError
from msft.forward.runtime import Runtime, sequence_scores
from msft.model.token_loss import TokenLoss

KINDS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "lora_alpha": 8},
    "a module beside": {"modules_to_save": ["lm_head"]},
    "a norm beside": {"modules_to_save": ["norm"], "exclude_modules": ["o_proj"]},
    "the second layer": {"layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"), tied=False)


def likelihoods(model: Any) -> list[float]:
    sequences = [[example] for example in tiny_data()["two"].train]
    runtime = Runtime(device=torch.device("cpu"), max_tokens=100)
    return list(sequence_scores(TokenLoss(model), sequences, runtime).mean)


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_trained_rolled_back_handed_over_and_read_again(
    folder: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    peft = {"r": 2, "target_modules": "all-linear"} | KINDS[kind]
    engine, store = tiny_engine(folder, tmp_path / "run", peft=peft, precision=precision)
    fresh = engine.base().scores
    engine.run(segment(0, 3), 1)
    first = engine.run(segment(3, 6, parent=1), 2)
    assert first.scores != fresh, "it learns"
    engine.run(segment(0, 2, parent=0, rollout=2), 3)
    again = engine.run(segment(3, 6, parent=1), 4)
    assert again.scores == first.scores and same(dict(store.get(2).tensors), dict(store.get(4).tensors))
    engine.run(segment(0, 3), 5)
    assert same(dict(store.get(1).tensors), dict(store.get(5).tensors)), "it begins with the same fresh adapter again"
    other, _ = tiny_engine(folder, tmp_path / "other", peft=peft, precision=precision)
    assert other.base().scores == fresh, "the fresh adapter depends on the seed alone"
    trained = {name.removeprefix("weight/") for name in store.get(2).tensors if name.startswith("weight/")}
    if kind == "the second layer":
        assert all("layers.1." in name for name in trained)
    if "modules_to_save" in KINDS[kind]:
        assert (any("modules_to_save" in name for name in trained) and not any("o_proj" in n for n in trained)) or (
            kind == "a module beside"
        )
    engine.export(2, tmp_path / "adapter")
    export_merged(engine, 2, tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = likelihoods(PeftModel.from_pretrained(base, str(tmp_path / "adapter")))
    merged = likelihoods(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    assert merged == pytest.approx(adapted, rel=1e-4, abs=1e-4)
    engine._live.become(2)
    mine = sequence_scores(
        engine._stepper.model, [[example] for example in tiny_data()["two"].train], engine._stepper.runtime
    ).mean
    assert list(mine) == pytest.approx(adapted, rel=1e-5 if precision == "fp32" else 0.05)


def test_a_module_that_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"peft\.layers_to_transform: found 7"):
        tiny_engine(folder, tmp_path, peft={"r": 2, "target_modules": "all-linear", "layers_to_transform": [7]})
