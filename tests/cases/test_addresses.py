"""Data files at addresses that fsspec reads; `memory://` stands for storage elsewhere, `file://` for this disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from texts_of_data import completions, loaded, refusal

from msft.config.dataset_section import DatasetConfig
from msft.data import sources
from msft.data.sources import Source


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def text(letter: str) -> bytes:
    return "".join(json.dumps({"prompt": f"p{n}", "completion": f"{letter}{n}"}) + "\n" for n in range(3)).encode()


def test_files_elsewhere_are_read_and_read_again_when_they_change(tmp_path: Path, storage: Any) -> None:
    for letter in "ab":
        storage.pipe("/bucket/a.jsonl", text(letter))
        data = loaded("memory://bucket/a.jsonl")
        assert sorted(completions(data)) == [f"{letter}{n}" for n in range(3)]
    assert any("memory://bucket/a.jsonl was copied to " in note for note in data.notes)
    source = Source(DatasetConfig(id="d", path="memory://bucket/a.jsonl"), 0)
    assert source.size == len(text("b")) and "a.jsonl" in source.identity
    assert source.identity == Source(DatasetConfig(id="d", path="memory://bucket/a.jsonl"), 0).identity


def test_rows_that_are_read_later_are_those_that_were_checked(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 1)
    storage.pipe("/bucket/a.jsonl", text("a"))
    rows = Source(DatasetConfig(id="d", path="memory://bucket/a.jsonl"), 0).rows()
    storage.pipe("/bucket/a.jsonl", text("b"))
    other = Source(DatasetConfig(id="d", path="memory://bucket/a.jsonl"), 0).rows()
    assert (rows[0].values["completion"], other[0].values["completion"]) == ("a0", "b0")


def test_patterns_other_kinds_and_validation_elsewhere(tmp_path: Path, storage: Any) -> None:
    storage.pipe("/b/x1.csv", b"question,answer\nq,01\nr,02\n")
    storage.pipe("/b/x2.csv", b"question,answer\ns,03\n")
    assert sorted(completions(loaded("memory://b/x*.csv"))) == ["01", "02", "03"]
    (tmp_path / "a.csv").write_text("question,answer\nt,04\n")
    data = loaded("memory://b/x*.csv", validation={"path": f"file://{tmp_path}/a.csv"})
    assert sorted(completions(data)) == ["01", "02", "03", "04"]
    message = refusal("memory://b/x1.csv", validation={"path": "memory:///b/x1.csv"})
    assert "the validation split is the training rows themselves" in message


def test_a_file_address_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(text("a"))
    rows = Source(DatasetConfig(id="d", path=f"file://{tmp_path}/a.jsonl"), 0).rows()
    assert rows[0].place == f"{tmp_path}/a.jsonl:1"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("s3://bucket/a.jsonl", "needs a package that is not installed. Fix: pip install s3fs"),
        ("gs://bucket/a.jsonl", "needs a package that is not installed. Fix: pip install gcsfs"),
        ("abfs://bucket/a.jsonl", "needs a package that is not installed. Fix: pip install adlfs"),
        ("odd://bucket/a.jsonl", "could not be read: ValueError: Protocol not known: odd"),
        ("memory://b/none.jsonl", "there is no file 'memory://b/none.jsonl'"),
        ("memory://b/none*.jsonl", "there is no file"),
        ("memory://b/a.txt", "ends in .txt. Fix: name files of one kind"),
        ("memory://b", "ends in no known ending. Fix: name files of one kind, those of a folder by a pattern such"),
        ("file:///no/such/a.jsonl", "there is no file"),
    ],
)
def test_what_cannot_be_read_is_said(address: str, found: str, storage: Any) -> None:
    storage.pipe("/b/a.txt", b"x")
    message = refusal(address)
    assert message.startswith("datasets.d: ") and found in message


def test_an_address_has_one_split_and_lines(storage: Any) -> None:
    storage.pipe("/b/a.jsonl", text("a") + b"{\n")
    assert "a.jsonl:4 datasets.d: invalid JSON" in refusal("memory://b/a.jsonl")
    assert "holds a single split, but split: test was asked for" in refusal("memory://b/a.jsonl", split="test")
