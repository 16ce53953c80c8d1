"""The scripts of examples/ that build on studies, on a tiny model: cut off by the clock, and gone on with."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from job import make_job

from msft.config.reader import load

EXAMPLES = Path(__file__).parents[2] / "examples"
BARE = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"datasets", "trl", "plotly", "reasoning_gym"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    except SystemExit as end:
        assert not end.code


def test_the_twelve_sets_take_300_examples_each_and_score_choices_as_text() -> None:
    config = load(EXAMPLES / "twelve_sets.yaml")
    assert len({dataset.id for dataset in config.datasets}) == 12
    assert {dataset.max_samples for dataset in config.datasets} == {300}
    choices = [dataset.scorer for dataset in config.datasets if dataset.scorer and dataset.scorer.name == "choice"]
    assert len(choices) == 10
    assert {scorer.of for scorer in choices} == {"text"}


def test_the_uneven_and_the_noisy_job_are_what_they_say() -> None:
    uneven, noisy, cheap = (load(EXAMPLES / f"{name}.yaml") for name in ("uneven", "noisy", "cheap"))
    ids = [dataset.id for dataset in cheap.datasets]
    assert [dataset.id for dataset in uneven.datasets] == [dataset.id for dataset in noisy.datasets] == ids
    sizes = [dataset.max_samples or 0 for dataset in uneven.datasets]
    assert (min(sizes), max(sizes), sum(sizes), uneven.data.mixing) == (10, 160, 699, "equal")
    assert [Path(dataset.path).name for dataset in noisy.datasets if "noisy" in dataset.path] == [
        "gcd_noisy.jsonl", "simple_equations_noisy.jsonl", "count_bits_noisy.jsonl",
    ]  # fmt: skip
    for config in (uneven, noisy):
        assert {dataset.validation and dataset.validation.max_samples for dataset in config.datasets} == {100}
        assert (config.training.average, config.training.learning_rate) == (1, 1.5e-3)


def test_wrong_answers_are_of_other_rows_of_the_same_split_and_never_in_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    splits = {"train": 20, "validation": 30, "test": 10}
    rows = [
        {"split": split, "prompt": f"{split} {n}", "completion": f" {split} {n % 7}"}
        for split, count in splits.items()
        for n in range(count)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("gcd", "simple_equations", "count_bits"):
        (tmp_path / "data" / f"{name}.jsonl").write_text(text)
    made = []
    for _ in range(2):
        run_script("cheap_model.py", [str(tmp_path), "--noisy"], monkeypatch)
        made.append({path.name: path.read_text() for path in tmp_path.rglob("*.jsonl")})
    assert made[0] == made[1] and made[0]["gcd.jsonl"] == text
    assert {path.name for path in tmp_path.iterdir()} == {"data"}, "no model is made"
    noisy = [json.loads(line) for line in made[0]["gcd_noisy.jsonl"].splitlines()]
    wrong = [(row, right) for row, right in zip(noisy, rows, strict=True) if row != right]
    assert Counter(row["split"] for row, _ in wrong) == {"train": 8, "validation": 12}
    assert all(row["prompt"] == right["prompt"] and row["split"] in row["completion"] for row, right in wrong)


def test_the_twelve_sets_go_on_where_the_clock_cut_them_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call without the libraries that a lent machine may not have; the folder is moved before the second."""
    job = make_job(tmp_path, "msft", ", max_epochs: 2, budget: 1, smooth: 1")
    monkeypatch.chdir(tmp_path)
    command = ["--config", str(job), "--output", "out", "--seeds", "2", "--methods", "msft,release_short,placebo"]
    command += ["--rates", "1e-3,1e-2", "--carry"]
    script = [sys.executable, "-c", BARE, str(EXAMPLES / "twelve_sets.py"), *command, "--minutes", "0.01"]
    first = subprocess.run(script, capture_output=True, text=True, env={**os.environ}, timeout=200, check=False)
    assert first.returncode == 0, first.stderr
    assert "time is up: the same command goes on" in first.stdout
    assert all((run / "summary.json").exists() for run in Path("out").glob("*/runs/*/*"))
    assert len(list(Path("out").glob("*/runs/*/*"))) < 2 + 2 * 3

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for entry in [entry for entry in tmp_path.iterdir() if entry != elsewhere]:
        shutil.move(entry, elsewhere)
    monkeypatch.chdir(elsewhere)
    command[1] = str(elsewhere / job.name)
    run_script("twelve_sets.py", command, monkeypatch)
    said = capsys.readouterr().out
    assert said.rstrip().endswith("finished")
    assert "| release_short |" in (elsewhere / "out/compare/comparison.md").read_text()

    run_script("study_tables.py", ["out/compare", "out/compare", "--against", "placebo"], monkeypatch)
    said = capsys.readouterr().out
    assert "## 8 validation items: 6 of 6 runs finished" in said
    assert "| minus placebo |" in said
    assert "## Decisions by the number of validation items" in said


def test_the_pilot_is_gone_on_with_and_ends_in_a_table_and_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, "sft", ", max_epochs: 2")
    command = [str(job), "--rates", "1e-3,1e-2", "--seeds", "2", "--output", str(tmp_path / "pilot")]
    run_script("pilot.py", command, monkeypatch)
    assert capsys.readouterr().out.count(" s\n") == 2 + 2
    words = (tmp_path / "pilot/pilot.md").read_text()
    assert "Chosen: 1e-" in words
    assert "| yes no |" in words
    assert "Gate: " in words
    assert (tmp_path / "pilot/pilot.svg").read_text().count("<svg") == 1
    shutil.rmtree(tmp_path / "pilot/seeds/runs" / words.split("Chosen: ")[1].split(".")[0] / "3")
    run_script("pilot.py", command, monkeypatch)
    assert capsys.readouterr().out.count(" s\n") == 1, "only what is missing is run"
    assert (tmp_path / "pilot/pilot.md").read_text() == words
