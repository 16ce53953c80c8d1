"""Plain SFT and a search side by side, as the quickstart runs them, with a model of a few thousand weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from job import make_job

from msft.cli.main import main
from msft.cli.quickstart import WHEEL, model_folder, side_by_side
from msft.config.reader import load
from msft.core.errors import ModelError
from msft.record.run_folder import RunFolder
from msft.report.story import read_story


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def config(place: Path) -> Any:
    return load(make_job(place, "msft", ", max_epochs: 1, budget: 1, smooth: 1"), [])


@pytest.fixture(scope="module")
def made(place: Path, config: Any) -> Path:
    side_by_side(config, place / "both")
    return place / "both"


def test_both_runs_share_base_scores_and_keep_their_models(made: Path) -> None:
    runs = {name: RunFolder(made / name) for name in ("sft", "msft")}
    bases = [run.transcript().header["brief"]["base"] for run in runs.values()]
    tests = [read_story(run).test["base"] for run in runs.values()]
    assert bases[0] == bases[1] and tests[0] == tests[1] and len(list((made / "base").iterdir())) == 1
    for run in runs.values():
        assert (run.final / "model.safetensors").exists() and run.page.exists() and run.notes.exists()


def test_it_ends_in_an_honest_comparison(
    made: Path, config: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in made.rglob("*") if file.name in {"journal.jsonl", "timings.jsonl"}}
    side_by_side(config, made)
    assert {file: file.read_bytes() for file in before} == before, "finished runs are not run again"
    shown = capsys.readouterr().out
    flat = " ".join(shown.split())
    comparison = "plain SFT with the same seed and data"
    assert flat.index(comparison) < flat.index("test, in") < flat.rindex(comparison)
    # In this small job, both chose the same point of the same training.
    assert flat.count(f"Its final model is the same as that of {comparison}: ") == 2
    assert flat.count("On this seed, msft changed nothing.") == 2
    command = f"msft compare {made / 'msft' / 'config.yaml'} --methods msft,sft --seeds 6"
    assert command in shown and f"Both side by side: {made / 'report.html'}" in shown
    assert comparison in (made / "msft" / "report.html").read_text()
    assert comparison in (made / "msft" / "final" / "README.md").read_text()
    # The command can be used as it stands.
    arguments = command.split()[1:]
    arguments[arguments.index("6")] = "1"
    assert main([*arguments, "--output", str(place / "compared")]) == 0
    assert re.search(r"Does msft beat sft here\? Too few seeds to tell", " ".join(capsys.readouterr().out.split()))


def test_an_interrupted_one_goes_on_bit_for_bit(made: Path, config: Any, place: Path) -> None:
    again = place / "again"
    for part in ("base", "sft"):
        shutil.copytree(made / part, again / part)
    shutil.copytree(made / "msft", again / "msft", ignore=shutil.ignore_patterns("final", "summary.json", "*.html"))
    journal = again / "msft" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    side_by_side(config, again)
    assert journal.read_bytes() == whole
    for name in ("model.safetensors", "README.md"):
        assert (again / "msft" / "final" / name).read_bytes() == (made / "msft" / "final" / name).read_bytes()
    summaries = [json.loads((each / "msft" / "summary.json").read_text()) for each in (made, again)]
    assert summaries[0]["test"] == summaries[1]["test"]


def test_a_folder_that_cannot_be_used_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quickstart", "--output", str(made / "msft")]) == 2
    assert "this is the folder of a single run. Fix: name another folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["quickstart", "--output", str(tmp_path / "file" / "x")]) == 2
    assert "nothing can be written into this folder" in capsys.readouterr().err


def test_the_model_goes_into_the_users_cache_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "wheel" / WHEEL
    wheel.mkdir(parents=True)
    (wheel / "__init__.py").touch()
    (wheel / "broken.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(wheel.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    with pytest.raises(ModelError, match="Fix: "):
        model_folder()
    assert str(tmp_path / "cache" / "msft") in capsys.readouterr().err
    assert not any((tmp_path / "cache").rglob("*.tmp"))
