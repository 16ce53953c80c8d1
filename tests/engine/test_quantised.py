"""Adapters on a base in 4 or 8 bits: read, trained, rolled back, handed over and merged."""

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
from msft.model.folder import ModelSource
from msft.model.open import OpenModel, load_model
from msft.model.quantised import packed, quantised_layers, settings, will_be_packed
from msft.model.token_loss import TokenLoss

pytest.importorskip("bitsandbytes")

ADAPTER = {"r": 2, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"), tied=False)


@pytest.mark.parametrize(
    ("kind", "precision"), [("fp4", "fp32"), ("nf4", "mixed"), ("nf4", "autocast"), ("int8", "mixed")]
)
def test_a_run_is_rolled_back_and_merged_into_the_base_as_it_is_stored(
    folder: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    engine, store = tiny_engine(folder, tmp_path / "run", peft=ADAPTER, quantize=kind, precision=precision)
    layers = [layer.weight.detach().clone() for layer in quantised_layers(engine._model)]
    assert len(layers) == 14 and all(weight.dtype in (torch.uint8, torch.int8) for weight in layers)
    fresh = engine.base().scores
    engine.run(segment(0, 3), 1)
    first = engine.run(segment(3, 6, parent=1), 2)
    assert first.scores != fresh, "it learns"
    engine.run(segment(0, 2, parent=0, rollout=2), 3)
    again = engine.run(segment(3, 6, parent=1), 4)
    assert again.scores == first.scores and same(dict(store.get(2).tensors), dict(store.get(4).tensors))
    engine.run(segment(0, 3), 5)
    assert same(dict(store.get(1).tensors), dict(store.get(5).tensors)), "it begins with the same fresh adapter again"
    assert all(torch.equal(a, b.weight) for a, b in zip(layers, quantised_layers(engine._model), strict=True))
    export_merged(engine, 2, tmp_path / "merged")
    assert "quantization" not in (tmp_path / "merged" / "config.json").read_text()


def likelihoods(model: Any) -> list[float]:
    sequences = [[example] for example in tiny_data()["two"].train]
    return list(sequence_scores(TokenLoss(model), sequences, Runtime(device=torch.device("cpu"), max_tokens=100)).mean)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_what_is_handed_over_is_what_was_trained(folder: Path, tmp_path: Path, kind: Any) -> None:
    """The adapter on the quantised base is the model of the run; merged, it is the adapter on the base as stored."""
    engine, _ = tiny_engine(folder, tmp_path / "run", peft=ADAPTER, quantize=kind)
    engine.run(segment(0, 4), 1)
    engine.export(1, tmp_path / "adapter")
    export_merged(engine, 1, tmp_path / "merged")
    bases = {}
    for whole in (False, True):
        base = load_model(ModelSource(name_or_path=str(folder), quantize=kind), whole=whole)
        bases[whole] = likelihoods(PeftModel.from_pretrained(base, str(tmp_path / "adapter")))
    mine = [[example] for example in tiny_data()["two"].train]
    trained = list(sequence_scores(engine._stepper.model, mine, engine._stepper.runtime).mean)
    assert trained == pytest.approx(bases[False], rel=1e-5)
    merged = likelihoods(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    assert merged == pytest.approx(bases[True], rel=1e-5)
    assert merged != pytest.approx(bases[False], rel=1e-4), "the two bases differ"


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_gradients_are_those_of_the_unpacked_base(folder: Path, tmp_path: Path, kind: Any, checkpointed: bool) -> None:
    """Also after scoring, and with activations that are computed again. On some CPUs, bitsandbytes repacks weights when
    a model scores, and no gradient passes through them then."""
    engine, _ = tiny_engine(
        folder, tmp_path / "run", peft=ADAPTER, quantize=kind, gradient_checkpointing=checkpointed, light=False
    )
    assert engine._stepper.model.checkpoints is checkpointed
    engine.run(segment(0, 2), 1)  # which scores at its end
    plain, _ = tiny_engine(folder, tmp_path / "plain", peft=ADAPTER, light=False)
    unpacked = load_model(ModelSource(name_or_path=str(folder), quantize=kind)).dequantize(torch.float32)
    weights = dict(unpacked.named_parameters())
    with torch.no_grad():
        for name, parameter in plain._model.get_base_model().named_parameters():
            if "lora_" not in name:
                parameter.copy_(weights[name.replace(".base_layer", "")])
        for name, tensor in engine.state().tensors.items():
            plain._stepper.weights[f"model.{name.removeprefix('weight/')}"].copy_(tensor)
    examples = tiny_data()["one"].train[:5]
    for each in (engine, plain):
        each._stepper.backward(examples, (1, 1, 1))
    mine, theirs = engine._stepper.weights, plain._stepper.weights
    for name, weight in theirs.items():
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0
        assert torch.allclose(mine[name].grad, weight.grad, rtol=1e-4, atol=1e-6), name  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [{}, {"modules_to_save": ["lm_head", "up_proj"]}])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_bytes_are_those_that_were_planned(folder: Path, kind: Any, more: dict[str, Any]) -> None:
    """A module that is trained whole is not quantised."""
    opened = OpenModel.open(ModelSource(name_or_path=str(folder), quantize=kind, peft=ADAPTER | more))
    found = packed(opened.load())
    assert found == will_be_packed(opened.skeleton, opened.quantized, more.get("modules_to_save"))
    assert found.parameters == 2 * (4 * 16 * 16 + (2 if more else 3) * 16 * 32)


def test_a_base_that_is_stored_in_few_bits(folder: Path, tmp_path: Path) -> None:
    """It is trained under an adapter only, and unpacked where the adapter is merged."""
    how = settings("nf4", ["lm_head"])
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=how)
    stored.save_pretrained(tmp_path / "stored")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "stored" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelError, match=r"stored in 4 bits, which cannot be trained\. Fix: add an adapter"):
        tiny_engine(tmp_path / "stored", tmp_path / "none")
    with pytest.raises(ModelError, match="found int8, but the model's weights are stored in another way: nf4"):
        tiny_engine(tmp_path / "stored", tmp_path / "none", peft=ADAPTER, quantize="int8")
    states = []
    for place, quantize in ((tmp_path / "stored", None), (folder, "nf4")):
        engine, store = tiny_engine(place, tmp_path / f"run {quantize}", peft=ADAPTER, quantize=quantize)
        engine.run(segment(0, 4), 1)
        states.append(dict(store.get(1).tensors))
        assert engine.parameters == 5120 + 80 + 1088, "layers, norms and the adapter; not the packed numbers"
    assert same(*states)
    engine, _ = tiny_engine(tmp_path / "stored", tmp_path / "again", peft=ADAPTER)
    engine.run(segment(0, 4), 1)
    export_merged(engine, 1, tmp_path / "merged")
    assert "quantization" not in (tmp_path / "merged" / "config.json").read_text()


def test_a_gguf_file_is_not_quantised_again(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"model.quantize: .* not quantised again. Fix: leave out model.quantize"):
        load_model(ModelSource(name_or_path=str(tmp_path), gguf_file="a.gguf", quantize="nf4"))
