"""Model folders that must be refused: one case each, before any weight is loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job import make_job
from safetensors.numpy import load_file, save_file

from msft.cli.main import main


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sharded(model: Path, **shards: str) -> None:
    """As if the weights lay in several files, of which only the ones named here are listed."""
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def rewrite(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def poison(tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
    tensors["model.norm.weight"][3] = np.nan


def cut(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def claims_too_much(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", 2**60) + weights.read_bytes()[8:])


def adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "other/base", "r": 4}))


def without_end(model: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (model / "tokenizer_config.json").write_text(json.dumps(config))


def chat(model: Path) -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    (model.parent / "copy.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(30)))


CODE = {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}, "model_type": "mine"}
CASES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "missing config.json": (lambda m: (m / "config.json").unlink(), "model/config.json", "the file is missing"),
    "config.json that is none": (lambda m: (m / "config.json").write_text("{"), "model/config.json", "not valid JSON"),
    "missing weights": (lambda m: (m / "model.safetensors").unlink(), "model", "has no safetensors file"),
    "missing shard": (lambda m: sharded(m, a="model-1.safetensors", b="model-2.safetensors"),
                      "model/model-2.safetensors", "the file is missing. Fix: download or copy the file again"),
    "weight_map above": (lambda m: sharded(m, a="../model/model-1.safetensors"),
                         "model.safetensors.index.json", "weight_map names '../model/model-1.safetensors', which is"),
    "weight_map of no names": (lambda m: sharded(m, a=3), "model.safetensors.index.json", "no weight_map"),  # type: ignore[arg-type]
    "truncated": (cut, "model/model.safetensors", "but its header says"),
    "2^60 bytes of header": (claims_too_much, "model/model.safetensors", f"its header claims {2**60} bytes"),
    "shape mismatch": (lambda m: edit(m / "config.json", intermediate_size=40), "model/model.safetensors",
                       "has the shape [24, 48], but config.json gives [24, 40]"),
    "pickled": (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), "model/pytorch_model.bin",
                "the weights are pickled, which can run any code when read"),
    "code": (lambda m: edit(m / "config.json", **CODE), "model/config.json", "auto_map asks to run code"),
    "a token beyond the embedding": (
        lambda m: (edit(m / "config.json", vocab_size=60), rewrite(m, lambda t: t.update(
            {"model.embed_tokens.weight": t["model.embed_tokens.weight"][:60]}))),
        "datasets.copy", "token 71 ('d') is beyond the model's 60 embeddings. Fix: use the tokenizer that belongs to"),
    "no pad and no eos": (without_end, "model", "has no end-of-sequence token"),
    "no chat template": (chat, "datasets.copy", "the rows hold messages, but the tokenizer of"),
    "NaN": (lambda m: rewrite(m, poison), "model/model.safetensors", "model.norm.weight holds a NaN or an infinity"),
    "adapter of another base": (adapter, "model/adapter_config.json", "an adapter of 'other/base', not a model of its"),
    "more positions than the model has": (lambda m: edit(m / "config.json", max_position_embeddings=6), "",
                                          "the model has 6 positions. Fix: set data.max_length to at most 6"),
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)

    def no_weights(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("msft.model.open._weights", no_weights)
    return make_job(tmp_path, "sft", ", max_epochs: 1")


def refused(config: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    before = sorted(config.parent.rglob("*"))
    capsys.readouterr()
    assert main(["train", str(config), *(part for override in overrides for part in ("--set", override))]) == 2
    assert sorted(config.parent.rglob("*")) == before, "something was written"
    message = capsys.readouterr().err
    assert ". Fix: " in message
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("case", CASES)
def test_a_bad_model_folder_is_refused(case: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, place, message = CASES[case]
    damage(config.parent / "model")
    found = refused(config, capsys)
    assert message in found
    assert place in found


def test_a_token_without_an_embedding_that_no_row_has_passes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text models of Gemma 3 have a tokenizer with a token for images, one more than the embedding has rows."""
    from transformers import AutoTokenizer

    folder = config.parent / "model"
    made = AutoTokenizer.from_pretrained(folder)
    assert made.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]}) == 1 and len(made) == 261
    made.save_pretrained(folder)
    assert main(["check", str(config)]) == 0
    config.write_text(config.read_text().replace("{answer}", "{answer}<image_soft_token>"))
    found = refused(config, capsys)
    assert "datasets.double: token 260 ('<image_soft_token>') is beyond the model's 260 embeddings" in found


@pytest.mark.parametrize("model", ["model", "some/model"])
def test_trusted_code_needs_a_revision(config: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    found = refused(config, capsys, "model.trust_remote_code=true", f"model.name_or_path={model}")
    assert "model.trust_remote_code: code that comes with the model may change unseen" in found


def test_code_beside_a_known_architecture_is_not_run_and_passes(config: Path) -> None:
    """Many folders name code that transformers has long had itself."""
    from msft.model.folder import ModelSource, check_model_folder

    edit(config.parent / "model" / "config.json", auto_map=CODE["auto_map"])
    check_model_folder(ModelSource(name_or_path=str(config.parent / "model")))


@pytest.mark.parametrize(("kind", "dtype"), [("BF16", 0x7F80), ("F16", 0x7C00), ("F32", 0x7F800000)])
def test_infinities_are_found_whatever_the_dtype(tmp_path: Path, kind: str, dtype: int) -> None:
    from msft.core.errors import ModelError
    from msft.model.finite import check_finite
    from msft.model.folder import ModelSource

    numbers = np.full(300_000, dtype - 1, np.uint32 if kind == "F32" else np.uint16)  # the largest finite ones
    source = ModelSource(name_or_path=str(tmp_path))

    def save() -> None:
        entry = {"w": {"dtype": kind, "shape": [len(numbers)], "data_offsets": [0, numbers.nbytes]}}
        header = json.dumps(entry).encode()
        content = struct.pack("<Q", len(header)) + header + numbers.tobytes()
        (tmp_path / "model.safetensors").write_bytes(content)

    save()
    check_finite(source)
    numbers[-1] = dtype
    save()
    with pytest.raises(ModelError, match="w holds a NaN or an infinity"):
        check_finite(source)
