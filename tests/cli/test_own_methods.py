"""A method from outside the package: by --import, by an entry point, and what is said where that goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from job import make_job

from msft import methods
from msft.cli.main import main
from msft.methods import METHODS, load_installed, register

MODULE = '''
from dataclasses import dataclass

from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Outlook, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Mixture
from msft.methods import register


@dataclass(frozen=True, kw_only=True)
class Params:
    power: float = 0.5
    """Sub-datasets are drawn in proportion to their size to this power."""

    def __post_init__(self):
        require(0 <= self.power <= 1, "power", "from 0 to 1", self.power)


def plan(brief):
    track = Track(brief)
    answer = Answer(brief, track.base)
    here = track.base
    mixture = Mixture(tasks=brief.tasks, weights=tuple(n ** brief.params.power for n in brief.sizes))
    for stop in track.ticks(here, mixture, brief.horizon):
        here = yield from track.advance(here, mixture, stop, score=brief.tasks, keep=answer.keep)
        answer.offer(here)
    return answer.choose(here)


def outlook(brief, at):
    return Outlook(bound=passes(brief, at), snapshots=PLAIN_HELD)


METHOD = Method(plan=plan, Params=Params, outlook=outlook)
register("NAME", METHOD)
'''


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table of methods and the modules that were imported, as they were before."""
    before, modules, path = dict(METHODS), set(sys.modules), list(sys.path)
    yield
    METHODS.clear()
    METHODS.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("own_"):
            del sys.modules[name]
    sys.path[:] = path


def test_an_imported_method_is_checked_trained_resumed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_power.py").write_text(MODULE.replace("NAME", "own_power"))
    config = str(make_job(tmp_path, "own_power", ", power: 0.25, max_epochs: 1"))
    assert main(["check", config]) == 2
    assert "own_power" in capsys.readouterr().err
    own = ["--import", "own_power"]
    assert main(["check", config, *own]) == 0
    assert "training equal to 1 epoch of the whole mixture (own_power)" in capsys.readouterr().out
    assert main(["check", config, *own, "--set", "method.power=2"]) == 2
    assert "method.power: power must be from 0 to 1, found 2" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["train", config, *own]) == 0
    assert "--methods own_power,sft --seeds 6 --import own_power\n" in capsys.readouterr().out
    assert main(["train", config, *own, "--resume"]) == 0
    assert main(["report", str(tmp_path / "run"), *own]) == 0
    assert main(["status", str(tmp_path / "run")]) == 0, "what the run says of itself is read without the method"
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_of_an_imported_method_is_scored_and_exported_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: None
) -> None:
    """A finished model needs no method: another process, which never saw the module, scores and exports it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_gone.py").write_text(MODULE.replace("NAME", "own_gone"))
    config, run = str(make_job(tmp_path, "own_gone", ", max_epochs: 1")), str(tmp_path / "run")
    assert main(["train", config, "--import", "own_gone"]) == 0
    capsys.readouterr()
    assert main(["eval", run, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    del METHODS["own_gone"]
    assert main(["eval", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scores
    assert main(["export", run]) == 0
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()


def test_a_method_that_lowers_the_rate_refuses_a_schedule_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: None
) -> None:
    monkeypatch.chdir(tmp_path)
    falling = MODULE.replace("NAME", "own_fall").replace("snapshots=PLAIN_HELD", "snapshots=PLAIN_HELD, anneals=True")
    (tmp_path / "own_fall.py").write_text(falling)
    config = str(make_job(tmp_path, "own_fall", ", max_epochs: 1"))
    own = [config, "--import", "own_fall"]
    assert main(["check", *own]) == 0
    capsys.readouterr()
    for command in ("check", "train"):
        assert main([command, *own, "--set", "training.schedule=linear"]) == 2
        said = "training.schedule: the method lowers the learning rate itself, and the schedule is linear. Fix: set"
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_all_methods_of_a_comparison_are_all_that_are_known(tmp_path: Path, known: None) -> None:
    """In processes of their own, which know the module too."""
    (tmp_path / "own_all.py").write_text(MODULE.replace("NAME", "own_all"))
    config = make_job(tmp_path, "own_all", ", max_epochs: 0.5")
    command = [sys.executable, "-m", "msft", "compare", str(config), "--import", "own_all", "--methods", "sft,own_all",
               "--seeds", "1", "--output", "study"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    comparison = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert "own_all" in json.dumps(comparison)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--import own_bad: there is no module own_bad. Fix: put the file into the working directory"),
        ("x = 1", "--import own_bad: the module registers no method. Fix: call msft.methods.register"),
        ("import not_there_at_all", "--import own_bad: it needs not_there_at_all, which is missing. Fix: install it"),
        ("1 / 0", "--import own_bad: the module cannot be imported (ZeroDivisionError: division by zero)"),
        (MODULE.replace("NAME", "sft"), "the name sft belongs to another method"),
        (
            MODULE.replace("@dataclass(frozen=True, kw_only=True)", "").replace("NAME", "x"),
            "must be a dataclass, found",
        ),
        ("from msft.methods import register\nregister('x', 1)", "x must be a msft.core.method.Method, found int"),
    ],
)
def test_a_module_that_brings_no_method_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: None, text: str | None,
    said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "own_bad.py").write_text(text)
    assert main(["schema", "--import", "own_bad"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_installed_package_brings_its_method_and_a_broken_one_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: None
) -> None:
    points = [
        EntryPoint("own_sft", "msft.methods.sft:METHOD", methods.GROUP),
        EntryPoint("own_broken", "no_such_package:METHOD", methods.GROUP),
        EntryPoint("ies", "msft.methods.sft:METHOD", methods.GROUP),
    ]
    monkeypatch.setattr(methods, "entry_points", lambda group: points)
    assert main(["env"]) == 0
    out, err = capsys.readouterr()
    assert "own_sft" in json.loads(out)["methods"] and METHODS["own_sft"] is METHODS["sft"]
    assert "the method own_broken of the package no_such_package:METHOD is left out: No module named" in err
    assert "the method ies of the package msft.methods.sft:METHOD is left out: the name ies belongs to another" in err
    assert len(load_installed()) == 2, "what is registered already stays"


def test_a_name_is_given_once(known: None) -> None:
    register("sft", METHODS["sft"])
    with pytest.raises(ValueError, match="the name sft belongs to another method"):
        register("sft", METHODS["ies"])
