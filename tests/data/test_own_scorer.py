"""A user's own scorer: found by name, called, and held to what it must return."""

from __future__ import annotations

import sys

import pytest

from msft.data.own_scorer import ScorerError, call, fingerprint, resolve

SOURCE = """\
def length(answers):
    return [min(1, len(a["generated"]) / 10) for a in answers]

def fails(answers):
    return [1 / len(a["generated"]) for a in answers]

def short(answers):
    return [0.5]

def none(answers):
    return None

def big(answers):
    return [0.5, 1.5]

def no_number(answers):
    return [float("nan")] * 2

nothing = 3
"""
ANSWERS = [{"generated": "12345"}, {"generated": ""}]
PLACES = ["d.jsonl:1", "d.jsonl:2"]


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "my_own_scorer.py").write_text(SOURCE)
    (tmp_path / "my_broken_scorer.py").write_text("import no_such_thing_at_all\n")
    (tmp_path / "my_raising_scorer.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("my_own_scorer", "my_broken_scorer", "my_raising_scorer"):
        sys.modules.pop(name, None)


def test_a_function_of_the_working_directory():
    path = list(sys.path)
    assert call("my_own_scorer:length", ANSWERS, PLACES) == [0.5, 0.0]
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("my_missing_scorer:f", "there is no module my_missing_scorer"),
        ("my_own_scorer:f", "my_own_scorer has no function f"),
        ("my_own_scorer:nothing", "my_own_scorer has no function nothing"),
        ("my_broken_scorer:f", "cannot be imported: ModuleNotFoundError: No module named 'no_such_thing_at_all'"),
        ("my_raising_scorer:f", "cannot be imported: RuntimeError: not today"),
    ],
)
def test_what_cannot_be_found(name, found):
    with pytest.raises(ScorerError) as caught:
        resolve(name)
    assert str(caught.value).startswith(f"scorer {name}: {found}") and "Fix: " in str(caught.value)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("fails", "raised ZeroDivisionError: division by zero (item d.jsonl:2)"),
        ("short", "returned 1 value for 2 answers"),
        ("none", "returned a NoneType for 2 answers"),
        ("big", "returned 1.5 (item d.jsonl:2)"),
        ("no_number", "returned a value that is not a finite number (float) (item d.jsonl:1)"),
    ],
)
def test_what_is_no_score(function, found):
    with pytest.raises(ScorerError) as caught:
        call(f"my_own_scorer:{function}", ANSWERS, PLACES)
    assert str(caught.value).startswith(f"scorer my_own_scorer:{function}: {found}. Fix: ")


def test_the_fingerprint_sees_the_source(tmp_path):
    before = fingerprint("my_own_scorer:length")
    assert fingerprint("my_own_scorer:length") == before
    sys.modules.pop("my_own_scorer")
    (tmp_path / "my_own_scorer.py").write_text(SOURCE + "\nmore = 1\n")
    assert fingerprint("my_own_scorer:length") != before
