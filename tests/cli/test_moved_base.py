"""`--set` where the model is a run's may say where the base of an adapter lies now, and nothing else of the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_export import logits, place, scored  # noqa: F401 - place is a fixture
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft.cli.main import main


@pytest.fixture
def moved(place: Path) -> Iterator[Path]:  # noqa: F811
    """The folder where the model of both runs lies now."""
    new = place / "elsewhere"
    (place / "model").rename(new)
    yield new
    new.rename(place / "model")


def test_the_base_of_an_adapter_is_read_where_it_lies_now(
    place: Path,  # noqa: F811
    moved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    merge = ["export", "lora", "--merge", "--output", str(tmp_path / "out")]
    here = ["--set", f"model.name_or_path={moved.name}"]
    for command in (["eval", "lora"], merge):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"lora: the base of the adapter is gone: there is no folder {place / 'model'}" in said
        assert "Fix: restore it, or name the folder where it lies now: --set model.name_or_path=FOLDER" in said
    found, _ = scored(capsys, "lora", *here)
    summary = json.loads((place / "lora" / "summary.json").read_text())
    assert {task: entry["report"] for task, entry in found["scores"].items()} == summary["validation"]
    assert main([*merge, *here]) == 0
    base, merged = (AutoModelForCausalLM.from_pretrained(folder) for folder in (moved, tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (logits(merged, tokenizer) - logits(base, tokenizer)).abs().max() > 0.1


def test_another_base_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    shutil.copytree(place / "model", tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text((place / "model" / "config.json").read_text() + " ")
    given = ["--set", f"model.name_or_path={tmp_path / 'other'}"]
    for command in (["eval", "lora"], ["export", "lora", "--merge", "--output", str(tmp_path / "out")]):
        assert main([*command, *given]) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'other'}: the base model is not the one that the adapter was trained on" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        (["eval", "full"], "model.name_or_path=model", "the run trained no adapter"),
        (["export", "full", "--merge"], "model.name_or_path=model", "the run trained no adapter"),
        (["export", "lora"], "model.name_or_path=model", "the base is read to merge an adapter into it"),
        (["eval", "full"], "model.tokenizer=/nowhere", "the model of a run is its own"),
        (["eval", "lora"], "model.gguf_file=abc.gguf", "the model of a run is its own"),
        (["eval", "lora"], "model={name_or_path: model}", "the model of a run is its own"),
        (["eval", "lora"], "peft.r=8", "the model of a run is its own"),
        (["eval", "lora", "--config", "lora.yaml"], "model.quantize=nf4", "the model of a run is its own"),
        (["export", "lora", "--merge"], "model.precision=fp32", "the model of a run is its own"),
    ],
)
def test_what_does_not_apply_to_the_model_of_a_run_is_refused(
    place: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    key: str,
    said: str,
) -> None:
    output = ["--output", str(tmp_path / "out")] if command[0] == "export" else []
    assert main([*command, *output, "--set", key]) == 2
    err = capsys.readouterr().err
    assert f"--set {key.partition('=')[0]}: {said}" in err and "Fix: " in err
    assert not (tmp_path / "out").exists()


def test_precision_applies_and_is_no_reason_to_score_data_that_changed(
    place: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["eval", "full", "--split", "validation", "--set", "model.precision=fp32"]
    assert main(given) == 0
    file = place / "copy.jsonl"
    before = file.read_text()
    try:
        file.write_text('{"prompt": "new>", "completion": "n"}\n' + before)
        capsys.readouterr()
        assert main(given) == 2
        assert "the data of copy are not those of the run" in capsys.readouterr().err
    finally:
        file.write_text(before)
