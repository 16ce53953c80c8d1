"""Runs that bring less than a validation set for each sub-dataset, from the command line and after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from job import make_data, make_model

from msft.cli.main import main
from msft.config.reader import load
from msft.core.errors import ConfigError
from msft.record.run_folder import RunFolder
from msft.study.grid import Grid, Variant
from msft.system import files
from msft.system.files import Operation

SEARCH = "{name: msft, eval_every: 0.5, max_epochs: 2, budget: 1, smooth: 1, leave_within: 0}"


class Kill(BaseException):
    """The process is gone: nothing of ours may catch this."""


class Killer:
    """Ends the run at the first operation after so many records of its journal."""

    def __init__(self, journal: Path, records: int) -> None:
        self.journal, self.records = journal, records

    def __call__(self, operation: Operation) -> None:
        if self.journal.exists() and self.journal.read_bytes().count(b"\n") >= self.records:
            raise Kill


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("less")
    make_model(folder / "model")
    make_data(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def write(place: Path, name: str, datasets: str, method: str = SEARCH, more: str = "") -> Path:
    file = place / f"{name}.yaml"
    file.write_text(
        f"model: {{name_or_path: model}}\nmethod: {method}\ndatasets:\n{datasets}{more}"
        "data: {max_length: 64, leaks: warn}\ntraining: {batch_size: 8, learning_rate: 0.02}\n"
        f"output: {name}\n"
    )
    return file


def content(run: Path) -> dict[str, object]:
    """What a resumed run has in common with one that was not killed."""
    kept = [run / "journal.jsonl", *(run / "final").glob("*.safetensors"), *(run / "final").glob("README.md")]
    summary = json.loads((run / "summary.json").read_text())
    return {"summary": {key: value for key, value in summary.items() if key != "seconds"}} | {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in kept
    }


def check_resumes(config: Path, run: Path, records: int) -> None:
    """The run, killed after some records and resumed, ends as the one that is there."""
    killed = run.with_name(f"{run.name}-killed")
    override = ["--set", f"output={killed.name}"]
    with patch.object(files, "observer", Killer(killed / "journal.jsonl", records)), pytest.raises(Kill):
        main(["train", str(config), *override])
    assert not (killed / "final").exists()
    assert main(["train", str(config), *override, "--resume"]) == 0
    assert content(killed) == content(run)


GROUP = """\
  - {id: copy, path: copy.jsonl, group: both, validation: {max_samples: 8}, test: {max_samples: 8}}
  - id: double
    path: double.jsonl
    group: both
    repeat: 0.5
    template: {prompt: "{question}=", completion: "{answer}"}
    test: {max_samples: 6}
  - {id: yes no, path: choice.jsonl, validation: {max_samples: 8}}
"""


def test_a_group_has_one_curve_and_a_test_score_of_each_data_set(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(place, "group", GROUP)
    assert main(["check", str(config)]) == 0
    said = capsys.readouterr().out
    assert "both: copy and double are one sub-dataset of the search, with one score over 8 validation items" in said
    assert main(["train", str(config)]) == 0
    run = place / "group"
    transcript = RunFolder(run).transcript()
    assert transcript.brief.tasks == ("both", "yes no")
    assert (transcript.brief.sizes, transcript.brief.pools) == ((24 + 17, 32), (24 + 34, 32))
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["validation"]) == {"both", "yes no"} and set(summary["test"]["answer"]) == {"copy", "double"}
    assert summary["groups"] == {"both": ["copy", "double"]}
    page = (run / "report.html").read_text()
    assert "Groups, each with one validation score and one exclusion: both (copy and double)." in page
    assert "Not in this table, because they have no test split: yes no." in page
    capsys.readouterr()
    assert main(["eval", str(run), "--split", "test", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"copy", "double"}
    check_resumes(config, run, 4)


PLAIN = """\
  - {id: copy, path: copy.jsonl, validation: {max_samples: 10}, test: {max_samples: 8}, scorer: {name: exact_match}}
  - {id: yes no, path: choice.jsonl, validation: {max_samples: 12}}
  - id: double
    path: double.jsonl
    template: {prompt: "{question}=", completion: "{answer}"}
"""


def test_a_search_that_is_trained_again_on_all_rows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(place, "refit", PLAIN, method=SEARCH.replace("}", ", refit: true}"))
    assert main(["check", str(config)]) == 0
    assert "42 rows are held out during the search" in capsys.readouterr().out
    assert main(["train", str(config)]) == 0
    said, run = capsys.readouterr(), place / "refit"
    assert "The search chose epoch" in said.err and "on all rows" in said.out
    transcript = RunFolder(run).transcript()
    assert (transcript.brief.held, transcript.brief.whole) == ((10, 12, 20), (32, 40, 40))
    final = [segment for segment, _ in transcript.segments if segment.why == "refit"]
    assert len(final) > 2 and not any(segment.score for segment in final)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["validation"] == {} and set(summary["refit"]["validation"]) == {"copy", "yes no", "double"}
    assert summary["refit"]["follows"]["snapshot"] == final[0].parent
    assert summary["answer"]["snapshot"] == len(transcript.segments)
    samples = json.loads((run / "samples.json").read_text())["body"]["samples"]
    assert {entry["task"] for entry in samples} == {"copy"}  # of the others, the model knows the validation rows
    assert main(["eval", str(run), "--split", "validation"]) == 2
    assert "the final model of this run was trained on its validation rows too" in capsys.readouterr().err
    card = (run / "final" / "README.md").read_text()
    assert "so it has no validation scores" in card
    check_resumes(config, run, len(transcript.segments) - 1)  # within the run on all rows


def test_without_a_test_split_nothing_is_claimed_of_a_model_that_was_trained_on_all_rows(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft = "{name: sft, max_epochs: 1, refit: true}"
    config = write(place, "untested", PLAIN.replace(", test: {max_samples: 8}", ""), method=sft)
    assert main(["train", str(config)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Not tested: the model that the search chose changed by" in out
    assert "these are validation scores of the model that the search chose. The final model has none" in out
    page = (place / "untested" / "report.html").read_text()
    assert "The final model has none, because it was trained on these rows too." in page


@pytest.mark.parametrize(
    ("method", "datasets", "message"),
    [
        (
            "{name: sro, refit: true}", PLAIN,
            "c.yaml:2 method.refit: no run on all rows can follow the method sro. Fix: remove refit, or use one ",
        ),
        (
            "{name: msft, refit: true}", "  - {id: copy, path: copy.jsonl, validation: {path: double.jsonl}}\n",
            "c.yaml:2 method.refit: no row is held out: every validation split is read from elsewhere. Fix: "
            "remove refit; training already takes all rows",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_again(
    place: Path, capsys: pytest.CaptureFixture[str], method: str, datasets: str, message: str
) -> None:
    config = write(place, "c", datasets, method=method)
    assert main(["check", str(config)]) == 2
    assert message in capsys.readouterr().err.replace(str(place) + "/", "")


def test_a_study_compares_methods_without_the_run_on_all_rows(place: Path) -> None:
    config = write(place, "compared", PLAIN, method="{name: msft, refit: true}")
    with pytest.raises(ConfigError, match=r"Fix: add --set method\.refit=false"):
        Grid(kind="compare", variants=(Variant(name="msft", config=load(config)),), seeds=(1, 2, 3))


AGGREGATE = """\
aggregate:
  id: exam
  path: copy.jsonl
  max_samples: 12
  scorer: {name: exact_match}
  test: {max_samples: 10}
"""
SOURCES = """\
  - {id: yes no, path: choice.jsonl, validation: {max_samples: 8}}
  - id: double
    path: double.jsonl
    template: {prompt: "{question}=", completion: "{answer}"}
    test: {max_samples: 6}
"""


def test_one_score_of_the_whole_mixture_chooses_the_final_model(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(place, "exam", SOURCES, more=AGGREGATE)
    assert main(["check", str(config)]) == 0
    assert "exam alone chooses the final model: 12 items (±14.4), scored by exact_match" in capsys.readouterr().out
    assert main(["train", str(config)]) == 0
    out, run = " ".join(capsys.readouterr().out.split()), place / "exam"
    assert "(best score of exam)" in out and "points on the test split of exam" in out
    assert "exam chose the final model, by its search score alone, and is not in the average" in out
    transcript = RunFolder(run).transcript()
    assert transcript.brief.tasks == ("yes no", "double") and transcript.brief.aggregate == "exam"
    assert all("exam" not in segment.mixture.tasks for segment, _ in transcript.segments)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["aggregate"] == "exam" and set(summary["validation"]) == {"yes no", "double", "exam"}
    assert set(summary["test"]["answer"]) == {"double", "exam"}
    assert summary["macro"]["test"]["answer"] == summary["test"]["answer"]["double"]
    assert main(["eval", "exam", "--split", "test"]) == 0
    rows = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert (rows["double"], rows["exam"], rows["average"]) == ("6", "10", "6"), "the average is one of sub-datasets"
    with pytest.raises(ConfigError, match="Fix: add --set aggregate=null"):
        Grid(kind="compare", variants=(Variant(name="msft", config=load(config)),), seeds=(1, 2, 3))
    check_resumes(config, run, 4)


def test_a_taught_run_that_is_trained_again_on_all_rows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its teachers, which also read the rows that were held out."""
    config = write(place, "taught", PLAIN, method="{name: self_distil, max_epochs: 1, select: last, refit: true}")
    assert main(["check", str(config)]) == 0
    assert "42 rows are held out during the search" in capsys.readouterr().out
    assert main(["train", str(config)]) == 0
    run = place / "taught"
    segments = RunFolder(run).transcript().segments
    final = [(segment, outcome) for segment, outcome in segments if segment.why == "refit" and segment.trains]
    assert final and all(segment.teacher is not None and segment.mixture.whole for segment, _ in final)
    begins = [o.tokens.probe for s, o in segments if s.teacher is not None and s.start == 0]
    assert len(begins) == 2 and begins[1] > begins[0] > 0, "all rows are read, not those of the search alone"
    said = capsys.readouterr()
    compared = r"its validation average is [\d.]+, that of the model that the run on all rows follows [\d.]+\."
    assert re.search(compared, " ".join(said.out.split()))
    check_resumes(config, run, len(segments) - 1)
