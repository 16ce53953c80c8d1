"""What a user can get wrong: one clear message, exit code 2, before any training and with nothing written."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_job(tmp_path, "msft", ", max_epochs: 1")


def refused(config: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = sorted(p for p in config.parent.rglob("*"))
    assert main(["train", str(config), *arguments]) == 2
    assert sorted(p for p in config.parent.rglob("*")) == before, "something was written"
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "Fix: " in message
    return re.sub(r"\s+", " ", message)


def test_a_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing.yaml" in refused(tmp_path / "nothing.yaml", capsys)


def test_a_missing_data_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("copy.jsonl", "gone.jsonl"))
    message = refused(config, capsys)
    assert "datasets.copy" in message
    assert "gone.jsonl" in message


def test_what_is_wrong_with_the_data_is_told_with_the_line_of_the_configuration(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found after the file was read. The id of one sub-dataset has a blank."""
    lines = config.read_text().splitlines()
    at = {name: 1 + next(n for n, text in enumerate(lines) if name in text) for name in ("id: copy", "yes no")}
    template = 'datasets.double.template.completion="{nothing}"'
    message = refused(config, capsys, "--set", template)
    assert f"--set {template} datasets.double.template.completion: no row has" in message

    config.write_text(config.read_text().replace("copy.jsonl", "gone").replace("choice.jsonl", "gone"))
    message = refused(config, capsys)
    assert f"{config}:{at['id: copy']} datasets.copy: " in message
    assert f"{config}:{at['yes no']} datasets.yes no: " in message


def test_an_unknown_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("batch_size", "batchsize"))
    line = config.read_text().splitlines().index("training: {batchsize: 8, learning_rate: 0.01}") + 1
    message = refused(config, capsys)
    assert f"{config}:{line} training.batchsize" in message
    assert "batch_size" in message.split("Fix: ")[1]


def test_a_sub_dataset_without_a_usable_example(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "copy.jsonl").write_text(json.dumps({"prompt": "a", "completion": "  "}) + "\n")
    message = refused(config, capsys)
    assert "copy" in message


def test_a_broken_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config.parent / "copy.jsonl"
    file.write_text(file.read_text() + '{"prompt": "secret thing\n')
    message = refused(config, capsys)
    assert f"{file}:41" in message
    assert "secret" not in message


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "cut"])
def test_an_unreadable_model_folder(config: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    model = config.parent / "model"
    if damage == "cut":
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        (model / damage).unlink()
    assert str(model) in refused(config, capsys)


def test_a_run_folder_that_holds_a_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config)]) == 0
    capsys.readouterr()
    message = refused(config, capsys)
    assert "already holds a run" in message
    assert "--resume" in message


def test_resume_without_a_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no run to resume" in refused(config, capsys, "--resume")


def test_a_bad_override(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "training.learnin_rate" in refused(config, capsys, "--set", "training.learnin_rate=1")


def test_a_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def watched(signal_number: int, frame: object) -> None:
    raise AssertionError("it waits for a pipe that nobody writes to")


def test_a_configuration_that_is_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "c.yaml"
    os.mkfifo(pipe)
    before = signal.signal(signal.SIGALRM, watched)
    signal.alarm(10)
    try:
        message = refused(pipe, capsys)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert f"{pipe}: the file is a named pipe (FIFO). Fix: write the configuration to a file" in message


def test_a_configuration_that_is_a_loop_of_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "c.yaml"
    loop.symlink_to(loop)
    assert f"{loop}: the file is a symbolic link that leads back to itself" in refused(loop, capsys)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("pipe", "this is not an empty folder"),
        ("loop", "this is not an empty folder"),
        ("dangling", "this is not an empty folder"),
        ("copy.jsonl/run", "copy.jsonl is not a folder, so no folder can be made in it"),
        ("x" * 300, "a name in it has more than 255 bytes"),
    ],
)
def test_an_output_that_can_be_no_folder(
    config: Path, capsys: pytest.CaptureFixture[str], output: str, found: str
) -> None:
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("gone")
    message = refused(config, capsys, "--set", f"output={output}")
    assert f"{output} output: " in message
    assert found in message


@pytest.mark.parametrize("template", ["gone.jinja", "pipe", "loop", "x" * 300, "latin.jinja"])
def test_a_chat_template_that_is_none(config: Path, capsys: pytest.CaptureFixture[str], template: str) -> None:
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("latin.jinja").write_bytes(b"\xe9{{ x }}")
    assert "model.chat_template: '" in refused(config, capsys, "--set", f"model.chat_template={template}")


@pytest.mark.parametrize("option", ["--learning_rate", "--output_dir", "--model_name_or_path"])
def test_an_option_of_other_trainers(config: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", str(config), option, "x"])
    assert ended.value.code == 2
    assert f"{option} x. Fix: give a value of the configuration as --set " in capsys.readouterr().err
