"""`msft train --resume`: the `--set` that the run began with need not be given again, and a run's folder is enough."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main
from msft.config.reader import load
from msft.record.run_folder import RunFolder

SET = ("--set", "training.learning_rate=2e-5", "--set", "datasets.0.validation.max_samples=12")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose run began with overrides."""
    folder = tmp_path_factory.mktemp("overrides")
    config = make_job(folder, "sft", ", max_epochs: 1")
    assert main(["train", str(config), *SET, "--set", f"output={folder / 'run'}"]) == 0
    return config


@pytest.fixture
def job(finished: Path, tmp_path: Path) -> tuple[str, Path]:
    """The configuration, whose output is now the copy of the run, and that copy."""
    run = tmp_path / "moved"
    shutil.copytree(finished.parent / "run", run)
    lines = finished.read_text(encoding="utf-8").splitlines()
    text = "\n".join([*(line for line in lines if not line.startswith("output:")), f"output: {run}"])
    config = finished.parent / f"{tmp_path.name}.yaml"
    config.write_text(text, encoding="utf-8")
    return str(config), run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_the_overrides_are_applied_again(job: tuple[str, Path]) -> None:
    config, run = job
    before = (run / "journal.jsonl").read_bytes()
    assert main(["train", config, "--resume"]) == 0
    assert main(["train", config, "--resume", *SET]) == 0
    assert main(["train", config, "--resume", *SET[:2]]) == 0
    assert (run / "journal.jsonl").read_bytes() == before
    assert sorted(RunFolder(run).read_overrides()) == sorted(SET[1::2])


def test_another_value_is_refused_by_name(job: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    config, run = job
    again = ("train", config, "--resume", "--set", "training.learning_rate=3e-5")
    assert "training.learning_rate was 2e-05, is now 3e-05" in refused(capsys, *again)
    assert "weight_decay was 0.0, is now 0.5" in refused(capsys, *again[:-1], "training.weight_decay=0.5")
    # Where it may change, the next `--resume` knows it, and one of another key is kept; but a run that has its end has
    # not been trained with it.
    before = (run / "config.yaml").read_bytes(), RunFolder(run).read_overrides()
    assert main([*again, "--allow-changed", "training.learning_rate"]) == 0
    assert ((run / "config.yaml").read_bytes(), RunFolder(run).read_overrides()) == before
    assert main(["train", config, "--resume"]) == 0
    shutil.rmtree(run / "final")
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    assert main([*again, "--allow-changed", "training.learning_rate"]) == 0
    said = RunFolder(run).read_overrides()
    assert said[-1] == "training.learning_rate=3e-5" and "datasets.0.validation.max_samples=12" in said
    assert load(run / "config.yaml").training.learning_rate == 3e-5


def test_a_change_of_the_file_that_an_override_would_hide_is_refused(
    job: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = job
    file = Path(config)
    text = file.read_text(encoding="utf-8")
    assert "learning_rate: 0.01" in text
    file.write_text(text.replace("learning_rate: 0.01", "learning_rate: 4.e-5"), encoding="utf-8")
    before = (run / "journal.jsonl").read_bytes()
    allow = ("--allow-changed", "training.learning_rate")
    said = refused(capsys, "train", config, "--resume", *allow)
    assert "began with --set training.learning_rate=2e-5, which applies again" in said
    assert "Fix: give the new value as --set training.learning_rate=VALUE" in said
    assert (run / "journal.jsonl").read_bytes() == before
    assert main(["train", config, "--resume", *allow, "--set", "training.learning_rate=2e-5"]) == 0
    assert main(["train", config, "--resume", "--allow-changed", "snapshots.max"]) == 0


def test_data_that_differ_because_of_a_key_name_the_key(
    job: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "train", job[0], "--resume", "--set", "data.seed=9")
    assert "data.seed was" in said and "the data of datasets.copy changed" in said
    assert "Fix: undo the change, or start a new run folder" in said


def test_without_its_record_the_overrides_must_be_given_again(
    job: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = job
    for content in (None, b"", b"{}", b"\xff"):
        (run / "overrides.json").unlink() if content is None else (run / "overrides.json").write_bytes(content)
        assert "training.learning_rate was 2e-05, is now " in refused(capsys, "train", config, "--resume")
    assert main(["train", config, "--resume", *SET]) == 0
    assert main(["train", config, "--resume"]) == 0


def test_the_folder_of_a_run_is_enough(
    job: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was moved since it began; and from another working directory."""
    _, run = job
    journal = (run / "journal.jsonl").read_bytes()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["train", "moved", "--resume"]) == 0
    assert "The page: moved/report.html" in capsys.readouterr().out
    assert (run / "journal.jsonl").read_bytes() == journal
    monkeypatch.chdir(run)
    assert main(["train", ".", "--resume", *SET]) == 0
    assert "is now 3e-05" in refused(capsys, "train", ".", "--resume", "--set", "training.learning_rate=3e-5")


def test_a_folder_that_cannot_be_used_says_what_to_do(
    job: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = job
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is the folder of a run, not a configuration. Fix: add --resume" in refused(capsys, "train", str(run))
    assert "this is a folder. Fix: name a configuration file" in refused(capsys, "train", str(empty))
    assert "this folder holds no run to resume" in refused(capsys, "train", str(empty), "--resume")
    assert "Fix: omit it" in refused(capsys, "train", str(run), "--resume", "--set", "output=elsewhere")
    (run / "config.yaml").unlink()
    for command in (["train", str(run), "--resume"], ["export", str(run)], ["eval", str(run)]):
        said = refused(capsys, *command)
        assert "config.yaml: the run's configuration is missing. Fix: give the run's configuration again" in said
        assert f"msft train FILE --set output={run} --resume" in said
    (empty / "study.json").write_text("{}")
    assert "this is the folder of a study. Fix: repeat the command" in refused(capsys, "train", str(empty), "--resume")
    assert "nowhere: there is no such file or folder. Fix: name " in refused(capsys, "train", "nowhere", "--resume")


def test_a_run_without_overrides_has_no_record_of_them(tmp_path: Path) -> None:
    config = make_job(tmp_path, "sft", ", max_epochs: 1")
    assert main(["train", str(config), "--set", f"output={tmp_path / 'plain'}"]) == 0
    assert not (tmp_path / "plain" / "overrides.json").exists()


def test_one_command_begins_a_run_and_resumes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a job that a scheduler starts again and again."""
    config = make_job(tmp_path, "sft", ", max_epochs: 1")
    command = ["train", str(config), "--resume-if-begun", "--set", f"output={tmp_path / 'run'}"]
    assert main(command) == 0
    began = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == began
    assert main(["train", str(tmp_path / "run"), "--resume-if-begun"]) == 0
    (tmp_path / "empty").mkdir()
    assert "this is a folder" in refused(capsys, "train", str(tmp_path / "empty"), "--resume-if-begun")


def test_a_relative_path_means_the_same_in_another_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.parent
    monkeypatch.chdir(folder)
    place, run = next(folder.glob("**/copy.jsonl")).relative_to(folder), tmp_path / "run"
    assert main(["train", str(finished), *SET, "--set", f"datasets.0.path={place}", "--set", f"output={run}"]) == 0
    assert f"datasets.0.path={folder / place}" in RunFolder(run).read_overrides()
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(finished), "--set", f"output={run}", "--resume"]) == 0
