"""`msft eval` and `msft export` use no damaged final model, and say how to make it again."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_export import place  # noqa: F401 - a fixture

from msft.cli.main import main


def flip_signs(final: Path, name: str = "model.safetensors") -> None:
    """Of some weights: the file stays a valid one, of another model."""
    file = final / name
    content = bytearray(file.read_bytes())
    weights = np.frombuffer(content, np.uint8)[-400:]
    weights[3::4] ^= 0x80
    file.write_bytes(content)


def cut_off(final: Path) -> None:
    file = next(final.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def lose_the_tokenizer(final: Path) -> None:
    (final / "tokenizer.json").unlink()


def add_other_weights(final: Path) -> None:
    """Which would be read instead of a model in several files."""
    shutil.copy(next(final.glob("*.safetensors")), final / "other.safetensors")


@pytest.mark.parametrize(
    ("run", "damage", "said"),
    [
        ("full", flip_signs, "model.safetensors: the content differs from the manifest"),
        ("full", cut_off, "model.safetensors: the content differs from the manifest"),
        ("full", lose_the_tokenizer, "tokenizer.json: the file is missing"),
        ("full", add_other_weights, "other.safetensors: the file is not in the manifest"),
        ("lora", cut_off, "adapter_model.safetensors: the content differs from the manifest"),
    ],
)
def test_a_damaged_final_model_is_not_used(
    place: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    run: str,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    damaged = tmp_path / "a run"
    shutil.copytree(place / run, damaged)
    damage(damaged / "final")
    merge = [["--merge"]] if run == "lora" else []
    export = ["export", str(damaged), "--output", str(tmp_path / "out")]
    for command in (["eval", str(damaged)], export, *([*export, *more] for more in (["--dtype", "float16"], *merge))):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert said in err and f"Fix: make it again: msft train '{damaged}' --resume" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a run"]


def test_the_command_that_the_error_names_makes_the_model_again(
    place: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "a run"
    shutil.copytree(place / "lora", run)
    flip_signs(run / "final", "adapter_model.safetensors")
    assert main(["eval", str(run)]) == 2
    again = shlex.split(capsys.readouterr().err.split("Fix: make it again: msft ")[1])
    assert main(again) == 0
    assert main(["eval", str(run)]) == 0
    name = "final/adapter_model.safetensors"
    assert (run / name).read_bytes() == (place / "lora" / name).read_bytes()


def test_the_final_model_of_another_run_is_not_used(
    place: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(place / "full", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    shutil.copytree(place / "lora" / "final", tmp_path / "run" / "final")
    assert main(["eval", str(tmp_path / "run")]) == 2
    assert "the final model is not the one of this run" in capsys.readouterr().err


def test_what_people_and_converters_put_beside_the_model_is_no_damage(place: Path, tmp_path: Path) -> None:  # noqa: F811
    """It is not handed over, and no reason to refuse the model."""
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(place / "full", run)
    (run / "final" / "README.md").write_text("my own words")
    (run / "final" / "model-Q8_0.gguf").write_bytes(b"GGUF")
    assert main(["eval", str(run)]) == 0
    assert main(["export", str(run), "--output", str(out)]) == 0
    listed = json.loads((run / "final" / "MANIFEST.json").read_text())["files"]
    assert {path.name for path in out.iterdir()} == set(listed)
    assert "my own words" not in (out / "README.md").read_text()
