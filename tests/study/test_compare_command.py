"""`msft compare` end to end on a tiny model: one command, killed and given again, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main
from msft.record.journal import read

METHODS = "msft,sft,placebo,sft_equal_flops"
SEARCH = ", max_epochs: 2, budget: 1, smooth: 1, flat: leaves"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("compare"), "msft", SEARCH)


def numbers(folder: Path) -> dict[str, object]:
    """All that must be the same however often the study was stopped: records, and the comparison without clocks."""
    data = json.loads((folder / "comparison.json").read_text())
    for row in data["methods"]:
        for timed in (row, *row["runs"]):
            del timed["seconds"]
    records = {str(f.relative_to(folder)): f.read_bytes() for f in folder.glob("runs/*/*/journal.jsonl")}
    return {"comparison": data, **records}


def test_a_study_killed_and_started_again_ends_with_the_same_numbers(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes; only their parent is killed: the workers must not go on by themselves."""
    command = ["compare", str(config), "--methods", METHODS, "--seeds", "2"]
    assert main([*command, "--output", str(config.parent / "whole")]) == 0
    out = capsys.readouterr()
    assert "minus sft" in out.out
    assert "\x1b" not in out.out
    assert out.err.count("seed 2") == 8
    whole, killed = config.parent / "whole", config.parent / "killed"
    frontier = json.loads((whole / "comparison.json").read_text())["frontier"]
    assert (frontier["measure"], frontier["reference"]) == ("held_out", "sft"), "every run recorded each item"
    assert {row["method"] for row in frontier["methods"] if len(row["curve"]) > 2} >= {"sft", "msft"}
    assert (whole / "report.html").read_text().startswith("<!doctype html>")
    with (whole / "comparison.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 3

    more = ["--output", str(killed), "--jobs", "2"]
    # Threads decide the last bits: each of two jobs gets one of two, which is what the whole study had.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    process = subprocess.Popen([sys.executable, "-m", "msft", *command, *more], env=environment)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if any(file.read_bytes().count(b"\n") >= 2 for file in killed.glob("runs/*/*/journal.jsonl")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the study ended before it could be killed"
    assert len(list(killed.glob("runs/*/*/summary.json"))) < 8
    assert main([*command, "--output", str(killed)]) == 0
    assert numbers(killed) == numbers(whole)


def test_the_peers_are_compared_end_to_end(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each on the real engine, with its own rate, draws, weights and mergers; plain fine-tuning sets the scale."""
    output, names = config.parent / "peers", ["sft", "wsd", "temperature", "coba", "merge", "merge:ties", "self_distil"]
    command = ["compare", str(config), "--methods", ",".join(names), "--seeds", "1", "--output", str(output)]
    assert main([*command, "--set", "training.average=1"]) == 0
    data = json.loads((output / "comparison.json").read_text())
    assert [row["method"] for row in data["methods"]] == names and not data["failures"]
    frontier = data["frontier"]
    assert [row["method"] for row in frontier["methods"]] == names and frontier["measure"] == "held_out"
    journals = {folder.name: read(folder / "20/journal.jsonl", folder / "20/sidecars").segments
                for folder in (output / "runs").iterdir()}  # fmt: skip
    falls = [segment.anneal for segment, _ in journals["wsd"] if segment.anneal]
    assert falls and len(journals["wsd"]) > len(falls)
    assert any(segment.mixture.loss_weights for segment, _ in journals["coba"])
    assert [journals[name][-1][0].ties for name in ("merge", "merge-ties")] == [None, 0.2]
    scores = [journals[name][-1][1].scores for name in ("merge", "merge-ties")]
    assert scores[0] != scores[1]
    taught = [segment.teacher for segment, _ in journals["self_distil"]]
    assert taught[0] is None and taught[-1] is not None and taught[-1].share == 0.5
    assert "7 methods" in capsys.readouterr().out


def test_ctrl_c_ends_the_study_and_not_one_run_of_it(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = config.parent / "interrupted"
    command = ["compare", str(config), "--methods", "sft,msft,one_pass", "--seeds", "3", "--output", str(output)]

    def interrupt() -> None:
        deadline = time.monotonic() + 100
        while not list(output.glob("runs/*/*/journal.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert main(command) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert "--resume" not in said, "compare knows no such option"
    assert "failed" not in said
    assert len(list(output.glob("runs/*/*/summary.json"))) < 9
    assert main(command) == 0
    assert not (output / "failures.json").exists()


def test_a_run_that_fails_is_shown_and_tried_again(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = config.parent / "failing"
    command = ["compare", str(config), "--methods", "sft,one_pass", "--seeds", "1", "--output", str(output)]
    assert main([*command, "--set", "training.learning_rate=1e30"]) == 2
    assert "no run of this study is finished; one failed" in capsys.readouterr().err
    output = config.parent / "blocked"
    command[-1] = str(output)
    assert main(command) == 0
    run = output / "runs" / "sft" / "20"
    for file in run.iterdir():
        file.unlink() if file.is_file() else shutil.rmtree(file)
    (run / "thesis.tex").touch()
    assert main(command) == 1
    assert "Failed: sft, seed 20" in " ".join(capsys.readouterr().out.split())
    assert "thesis.tex" not in (output / "report.html").read_text()
    (run / "thesis.tex").unlink()
    assert main(command) == 0
    assert "Failed" not in (output / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "msff"], "did you mean 'msft'"),
        (["--methods", "sft", "--against", "ies"], "'ies' is not one of the methods"),
        (["--methods", "sft", "--set", "datasets.copy.path=gone.jsonl"], "gone.jsonl"),
    ],
)
def test_what_cannot_be_compared_writes_nothing(
    config: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = config.parent / "refused"
    assert main(["compare", str(config), *more, "--output", str(output)]) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_several_launched_processes_are_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["compare", str(config), "--methods", "sft"]) == 2
    assert "use --jobs" in capsys.readouterr().err
