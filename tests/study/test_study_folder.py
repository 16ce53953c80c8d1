"""`msft report` and `msft status` on the folder of a comparison: its own page, and the state of its runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main
from msft.record.run_folder import RunFolder
from msft.study.grid import StudyFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    config = make_job(folder, "msft", ", max_epochs: 1, budget: 1, smooth: 1")
    command = ["compare", str(config), "--methods", "sft,msft", "--seeds", "2"]
    assert main([*command, "--output", str(folder / "study")]) == 0
    return folder / "study"


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> StudyFolder:
    shutil.copytree(finished, tmp_path / "study")
    return StudyFolder(tmp_path / "study")


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_the_report_is_the_one_that_compare_wrote(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    ours = (study.page, study.comparison, study.table, study.markdown)
    before = [file.read_bytes() for file in ours]
    for file in (study.page, study.table):
        file.unlink()
    out = said(capsys, "report", study.path)
    assert "minus sft" in out and f"The page: {study.page}" in out
    assert [file.read_bytes() for file in ours] == before


def test_the_reference_is_plain_sft_whatever_the_order(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(study.comparison.read_text(encoding="utf-8"))
    study.comparison.write_text(json.dumps({**before, "version": 1, "reference": "msft"}), encoding="utf-8")
    study.run("msft", 21).summary.unlink()
    assert "minus sft" in said(capsys, "report", study.path)
    written = json.loads(study.comparison.read_text(encoding="utf-8"))
    assert written["reference"] == "sft" and [len(row["seeds"]) for row in written["methods"]] == [2, 1]


def test_a_page_elsewhere_leaves_the_folder_as_it_is(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.page.write_text("ours", encoding="utf-8")
    said(capsys, "report", study.path, "--page", tmp_path / "elsewhere.html")
    assert study.page.read_text(encoding="utf-8") == "ours"
    assert (tmp_path / "elsewhere.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_two_folders_are_reported_as_runs_and_a_study_keeps_its_page(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = study.page.read_bytes()
    one, two = (study.run("sft", seed).path for seed in (20, 21))
    assert "The page: study/runs/sft/report.html" in said(capsys, "report", one, two)
    assert (study.path / "runs/sft/report.html").exists() and study.page.read_bytes() == before


def test_the_status_of_every_run(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "status", study.path).splitlines()[0] == "msft compare: 4 of 4 runs done"
    for name, seed in (("sft", 21), ("msft", 20), ("msft", 21)):
        study.run(name, seed).summary.unlink()
    shutil.rmtree(study.run("msft", 21).path)
    study.write_failures({("msft", 20): "out of memory"})
    with study.run("sft", 21).owned():
        lines = said(capsys, "status", study.path).splitlines()
    assert lines[0] == "msft compare: 1 of 4 runs done, 1 running, 1 failed, 1 to go"
    rows = [" ".join(line.split()) for line in lines]
    assert "sft done running, epoch 1" in rows and "msft failed to go" in rows
    assert "msft, seed 20 failed: out of memory" in rows
    assert lines[-1].startswith("No process is running. To continue, repeat the command")
    study.failures.unlink()
    assert "1 of 4 runs done, 2 stopped, 1 to go" in said(capsys, "status", study.path)


def test_a_run_whose_journal_was_cut_off_is_named_with_the_way_out(
    study: StudyFolder, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback."""
    run = study.run("sft", 21)
    whole = run.journal.read_bytes()
    run.journal.write_bytes(whole[:-20])
    assert main(["report", str(study.path)]) == 2
    assert f"msft: {run.path}: the run has a summary, but its journal ends" in capsys.readouterr().err
    out = said(capsys, "status", study.path)
    assert "3 of 4 runs done, 1 damaged" in out and f"Damaged: {run.path}: the run has a summary, but its" in out
    again = ["--methods", "sft,msft", "--seeds", "2", "--output", str(study.path)]
    job = str(next(finished.parent.glob("*.yaml")))
    assert main(["compare", job, *again]) == 2
    assert "or remove summary.json and repeat the command" in capsys.readouterr().err
    run.summary.unlink()
    assert main(["compare", job, *again]) == 0
    assert run.journal.read_bytes() == whole
    run.journal.write_bytes(b"")
    assert main(["report", str(study.path)]) == 2
    assert f"{run.journal}: the journal holds no complete record" in capsys.readouterr().err


def test_a_run_that_was_finished_later_is_not_failed(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_failures({("msft", 20): "out of memory", ("sft", 21): "out of memory"})
    study.run("sft", 21).summary.unlink()
    assert study.read_failures() == {"sft": {"21": "out of memory"}}
    out = said(capsys, "report", study.path)
    assert "Failed: sft, seed 21: out of memory" in out and "Failed: msft" not in out
    (row,) = [r for r in json.loads(study.comparison.read_text())["methods"] if r["method"] == "msft"]
    assert row["failed"] == 0 and "Failed: msft" not in study.page.read_text(encoding="utf-8")


def test_the_status_before_the_first_run(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(study.path / "runs")
    with RunFolder(study.path).owned():
        lines = said(capsys, "status", study.path).splitlines()
    assert lines[0] == "msft compare: 0 of 4 runs done, 4 to go"
    assert lines[-1].startswith("Running: process") and lines[-1].endswith("is scored first.")


def test_what_cannot_be_reported_says_what_to_do(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(study.path), "--watch"]) == 2
    assert "only one run can be watched" in capsys.readouterr().err
    record = json.loads(study.record.read_text(encoding="utf-8"))
    study.record.write_text(json.dumps(record | {"kind": "study peaks"}), encoding="utf-8")
    page = study.page.read_bytes()
    assert main(["report", str(study.path)]) == 2
    assert "Fix: repeat msft study peaks" in capsys.readouterr().err and study.page.read_bytes() == page
    assert "msft study peaks: 4 of 4 runs done" in said(capsys, "status", study.path)
    study.record.write_text("{", encoding="utf-8")
    for command in ("report", "status"):
        assert main([command, str(study.path)]) == 2
        assert "this record of a study cannot be read" in capsys.readouterr().err
