"""Whole jobs whose sub-datasets are scored on what the model says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main
from msft.record.run_folder import RunFolder

OWN = """\
def digits(answers):
    for answer in answers:
        assert set(answer) == {"prompt", "completion", "generated", "row"}
        assert answer["prompt"].endswith(answer["row"]["question"] + "="), answer["prompt"]
    return [sum(letter.isdigit() for letter in answer["generated"]) / 4 for answer in answers]

def fails(answers):
    raise ValueError("no such luck")
"""
SPEAKING = [
    "--set", "datasets.copy.scorer={name: generate, max_new_tokens: 4, shots: {k: 1, from: train, seed: 2}}",
    "--set", "datasets.double.scorer={name: 'my_job_scorer:digits', max_new_tokens: 4}",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_job_scorer.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("my_job_scorer", None)


def test_what_is_said_is_reported_and_the_search_acts_on_the_control(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_job(place, "sft", ", max_epochs: 4", output="speaking")
    assert main(["train", str(config), *SPEAKING]) == 0
    transcript = RunFolder(place / "speaking").transcript()
    assert {task: m["name"] for task, m in transcript.header["measures"].items()} == {
        "copy": "generate", "yes no": "choice", "double": "my_job_scorer:digits",
    }  # fmt: skip
    last = transcript.segments[-1][1]
    assert 0 < last.scores["copy"] < 1 and last.reports["copy"] in {number / 8 for number in range(9)}
    assert last.scores["copy"] != last.reports["copy"]
    assert last.scores["double"] == last.reports["double"] > 0, "the search acts on what the user wrote"
    summary = json.loads((place / "speaking" / "summary.json").read_text())
    assert set(summary["test"]["answer"]) == {"copy", "yes no"}
    # A scorer that has changed is not the one that the run began with.
    capsys.readouterr()
    sys.modules.pop("my_job_scorer")
    (place / "my_job_scorer.py").write_text(OWN + "# another\n")
    assert main(["train", str(config), *SPEAKING, "--resume"]) == 2
    assert "the data of datasets.double changed (its rows, their tokens or the scorer)" in capsys.readouterr().err


def test_a_scorer_that_is_not_there_is_told_before_anything_is_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_job(place, "sft", ", max_epochs: 1")
    before = sorted(place.rglob("*"))
    assert main(["train", str(config), "--set", "datasets.double.scorer={name: 'my_job_scorer:consonants'}"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "scorer my_job_scorer:consonants: my_job_scorer has no function consonants. Fix: " in message
    assert [path for path in sorted(place.rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_scorer_that_fails_is_named_with_its_item(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_job(place, "sft", ", max_epochs: 1")
    assert (
        main(["train", str(config), "--set", "datasets.double.scorer={name: 'my_job_scorer:fails', max_new_tokens: 4}"])
        == 2
    )
    message = " ".join(capsys.readouterr().err.split())
    assert "scorer my_job_scorer:fails: raised ValueError: no such luck (item " in message
    assert "double.jsonl:" in message and "Traceback" not in message


def test_a_prompt_and_its_answer_must_fit_the_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_job(place, "sft", ", max_epochs: 1")
    assert main(["train", str(config), "--set", "datasets.copy.scorer={name: generate, max_new_tokens: 125}"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "datasets.copy.scorer.max_new_tokens: a prompt of 5 tokens and" in message and "128 positions" in message


def test_the_estimate_bounds_what_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_job(place, "sft", ", max_epochs: 1", output="bounded")
    capsys.readouterr()
    assert main(["check", str(config), "--json", *SPEAKING]) == 0
    made = json.loads(capsys.readouterr().out)
    bound = sum(part["validation_tokens"] for part in made["parts"])
    generated = sum(part["generated_tokens"] for part in made["parts"])
    assert main(["train", str(config), *SPEAKING]) == 0
    first = RunFolder(place / "bounded").transcript().header["brief"]["base"]["tokens"]["eval"]
    assert bound - generated < first <= bound
