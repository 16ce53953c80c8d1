"""What is seen of a run beside it and after it: status, report --watch, trackers, a log file."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from job import make_job
from run_folders import make_run
from test_trackers import read

from msft.cli import report
from msft.cli.main import main
from msft.core.wire import outcome_to_json
from msft.record.journal import Journal
from msft.record.run_folder import RunFolder
from msft.report.story import read_story

EVIL = "evil\x1b[31m[red]"


def test_status_says_where_a_run_stands_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = make_run(tmp_path / "cut", names=("arc", EVIL, "piqa", "boolq"), stop_after=20)
    assert main(["status", str(cut.path)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    for needed in (
        "not finished",
        "roll-out 2",
        "evil[31m[red]",
        "Last decision: Roll-out 1",
        "Continue with --resume",
    ):
        assert needed in shown
    flat = " ".join(shown.split())
    # 2 s a segment of 7 or 8 steps; the bound says where it comes from.
    assert "maximum remaining time of the search:" in flat
    assert "(the limit of 10 epochs, plus one discarded roll-out of 4 epochs per active sub-dataset)" in flat
    plain = make_run(tmp_path / "plain", "sft", stop_after=3)
    assert main(["status", str(plain.path)]) == 0
    assert "maximum remaining time of the training:" in " ".join(capsys.readouterr().out.split())
    with cut.owned():
        assert main(["status", str(cut.path)]) == 0
    assert "Running: process" in capsys.readouterr().out
    finished = make_run(tmp_path / "finished")
    assert main(["status", str(finished.path)]) == 0
    shown = capsys.readouterr().out
    assert "The final model is the one at epoch" in shown
    assert "at most" not in shown
    assert "--resume" not in shown


def test_status_before_the_first_record_and_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with folder.owned():
        assert main(["status", str(folder.path)]) == 0
    assert "the base model is scored first" in capsys.readouterr().out
    assert main(["status", str(folder.path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_watched_page_follows_the_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EVERY", 0.05)
    folder = make_run(tmp_path / "run", stop_after=9)
    watching = threading.Thread(target=main, args=(["report", str(folder.path), "--watch"],))
    watching.start()
    while not folder.page.exists():
        time.sleep(0.02)
    assert 'http-equiv="refresh"' in folder.page.read_text(encoding="utf-8")
    story = read_story(folder)
    tested = {which: outcome_to_json(story.brief.base) for which in ("base", "answer")}
    Journal.resume(folder.journal, folder.sidecars)[0].final({"answer": 8, "test": tested})
    watching.join(timeout=60)
    assert not watching.is_alive()
    page = folder.page.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in page
    assert "4 sub-datasets: finished" in page


def test_a_run_is_told_to_tensorboard_and_its_log_has_no_control_codes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_job(tmp_path, more=", max_epochs: 1.5, budget: 1, replay: 0.0")
    assert main(["train", str(config), "--set", "training.report_to=[tensorboard]"]) == 0
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err
    assert "roll-out 1  epoch" in err
    folder = RunFolder(tmp_path / "run")
    story, points = read_story(folder), read(folder.trackers)
    total = sum(segment.stop - segment.start for segment, _ in story.segments)
    assert [step for step, _ in points["train/loss"]] == list(range(1, total + 1))
    assert points["test/answer/copy"] == [(total, pytest.approx(story.test["answer"].reports["copy"]))]
    # Going on with a finished run tells nothing again, and another tracker is no other run.
    assert main(["train", str(config), "--resume", "--set", "training.report_to=[tensorboard]"]) == 0
    assert read(folder.trackers) == points
    assert main(["train", str(config), "--resume"]) == 0
