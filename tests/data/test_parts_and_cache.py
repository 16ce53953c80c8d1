"""`split_by`, and the cache of tokenised data: the same as without it, and never a stale or damaged entry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers_for_tests import tokenizer

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data import cache
from msft.data.load import load_tasks


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "a.jsonl"
    rows = [
        {
            "question": f"{n} is what?",
            "choices": ["odd", "even"],
            "answer": 1 - n % 2,
            "subject": ("Ent", "b/c", None, "Art")[n % 4] if n < 199 else "rare",
            "part": "test" if n > 180 else "train",
        }
        for n in range(200)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def load(path, *, made=None, data=None, positions=None, **keys):
    dataset = {"id": "d", "path": str(path), **keys}
    config = {"model": {"name_or_path": "m"}, "datasets": [dataset], "output": "o", "data": data or {}}
    return load_tasks(Config.model_validate(config), made or tokenizer(), positions)


def test_each_value_of_a_column_is_a_sub_dataset(path):
    keys = {"where": {"part": "train"}, "test": {"where": {"part": "test"}}, "split_by": "subject"}
    tasks = load(path, **keys)
    assert list(tasks) == ["d.Art", "d.Ent", "d.b-c"]
    assert [len(task.train) + len(task.validation) for task in tasks.values()] == [45, 46, 45]
    assert [len(task.test) for task in tasks.values()] == [4, 4, 5]
    assert tasks["d.Art"].notes == (
        "3 sub-datasets by subject; the smallest, 'b/c', has 45 rows",
        "45 rows without subject belong to none of the sub-datasets",
    )
    with pytest.raises(DataError, match=r"datasets\.d\.rare: there is no validation example"):
        load(path, split_by="subject")
    with pytest.raises(DataError, match=r"datasets\.d\.split_by: no row has a column 'subjct'. Fix: did you mean"):
        load(path, split_by="subjct")


def valued(tmp_path, *values):
    """A file of 60 rows with these values in turn, and what `split_by` makes of it."""
    file = tmp_path / "v.jsonl"
    rows = [{"prompt": f"p {n}", "completion": f"c {n}", "kind": values[n % len(values)]} for n in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(file, split_by="kind")


def test_truth_values_and_numbers_are_different_values(tmp_path):
    """They are equal in Python, and `where` tells them apart: rows of one kind were in no sub-dataset."""
    tasks = valued(tmp_path, 0, 1, True, False)
    assert set(tasks) == {"d.0", "d.1", "d.True", "d.False"}
    assert all(len(task.train) + len(task.validation) == 15 for task in tasks.values())


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("../x", "d.-x"),
        ("/etc/passwd", "d.-etc-passwd"),
        ("C:\\x", "d.C--x"),
        ("CON", "d.CON"),  # "d.CON" is no device: its first part is not
        ("<script>", "d.-script-"),
        ("Who? What*", "d.Who- What-"),
        ("etc.", "d.etc"),
        (" padded ", "d.padded"),
        (3, "d.3"),
    ],
)
def test_values_that_no_file_can_be_named_after_are_made_safe(tmp_path, value, name):
    tasks = valued(tmp_path, value, "plain")
    assert set(tasks) == {name, "d.plain"}
    assert len(tasks[name].train) + len(tasks[name].validation) == 30


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (("x", "y" * 300), ":2 datasets.d.split_by: the value of kind: found 'yyy"),
        (("x", "é" * 51), ":2 datasets.d.split_by: the value of kind: found '\\xe9"),
        (("x", "a\u202eb"), ":2 datasets.d.split_by: the value of kind: found 'a\\u202eb', which cannot name"),
        (("x", "a\x07"), ":2 datasets.d.split_by: the value of kind: found 'a\\x07', which cannot name"),
        (("x", "y", " "), ":3 datasets.d.split_by: the value of kind: found ' ', which gives an empty name"),
        (("x", ".."), ":2 datasets.d.split_by: the value of kind: found '..', which gives an empty name"),
        (("x", ["y"]), ":2 datasets.d.split_by: kind is a list, which cannot name a sub-dataset"),
        (("Ent", "ENT"), ":1 datasets.d.split_by: 'ENT' and 'Ent' would both name 'd.Ent'"),
        (("Ent", "\uff25nt"), ":2 datasets.d.split_by: 'Ent' and '\uff25nt' would both name"),
        (("b/c", "b-c"), ":1 datasets.d.split_by: 'b-c' and 'b/c' would both name 'd.b-c'"),
        (("1", 1), ":1 datasets.d.split_by: 1 and '1' would both name 'd.1'"),
    ],
)
def test_values_that_can_name_nothing_are_refused(tmp_path, values, found):
    with pytest.raises(DataError) as caught:
        valued(tmp_path, *values)
    assert f"{tmp_path}/v.jsonl{found}" in str(caught.value) and ". Fix: " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_part_and_another_data_set_of_the_same_name(tmp_path):
    valued(tmp_path, "x", "y")
    file = str(tmp_path / "v.jsonl")
    datasets = [{"id": "d.X", "path": file}, {"id": "d", "path": file, "split_by": "kind"}]
    config = {"model": {"name_or_path": "m"}, "datasets": datasets, "output": "o", "data": {"leaks": "warn"}}
    with pytest.raises(DataError, match=r"^datasets\.d\.x: the name is taken: 'd.X' is the same if case"):
        load_tasks(Config.model_validate(config), tokenizer())


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """The cache is used from the first byte on; returns its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    return tmp_path / "cache" / "msft" / "data"


def same(one, other):
    def arrays(task):
        options = [o for items in (task.validation, task.test) for item in items for o in item.options]
        return [part for example in [*task.train, *options] for part in (example.ids, example.trained)]

    rest = [
        [(i.answer, i.option_bytes, len(i.options)) for i in (*t.validation, *t.test)]
        + [t.measure, t.fingerprint, t.ends, t.notes]
        for t in (one, other)
    ]
    return rest[0] == rest[1] and all(map(np.array_equal, arrays(one), arrays(other)))


def test_commands_that_do_not_know_the_model_use_the_same_entry(path, cached):
    """A run and `msft check` say in the notes how many tokens the model takes, `msft eval` and `msft preview` not."""
    keys = {"data": {"max_length": 20}, "format": "text", "columns": {"text": "question"}}
    path.write_text("".join(json.dumps({"question": "long text " * 9 + str(n)}) + "\n" for n in range(100)))
    told, plain = (load(path, positions=positions, **keys)["d"] for positions in (512, None))
    assert len([*cached.iterdir()]) == 1
    assert any("(data.max_length; the model takes 512)" in note for note in told.notes)
    assert any("(data.max_length)" in note for note in plain.notes)
    assert told.notes == load(path, positions=512, **keys)["d"].notes


def test_the_cache_changes_nothing_and_is_used(path, cached, monkeypatch):
    keys = {
        "scorer": {"name": "choice", "normalize": "byte"},
        "test": {"max_samples": 20},
        "validation": {"max_samples": 9},
    }
    monkeypatch.setattr(cache, "CACHE_FROM", 2**40)
    plain = load(path, **keys)["d"]
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    first = load(path, **keys)["d"]
    monkeypatch.setattr("msft.data.load.check", None)  # nothing is read again
    second = load(path, **keys)["d"]
    assert same(plain, first) and same(plain, second)
    assert [entry.name[0] == "." for entry in cached.iterdir()] == [False]


def test_whatever_decides_makes_another_entry(path, cached):
    load(path)
    for change in ({"made": tokenizer(bos=True)}, {"max_samples": 50}, {"data": {"max_length": 64}}):
        load(path, **change)
    path.write_text(path.read_text().replace("99 is", "99 was"))
    assert "was" in "".join(tokenizer().decode(example.ids) for example in load(path)["d"].train)
    assert len(list(cached.iterdir())) == 5


def test_a_damaged_entry_is_made_again(path, cached):
    first = load(path)["d"]
    wanted = first.fingerprint
    (entry,) = cached.iterdir()
    ids = entry / "0.train.ids"
    content = bytearray(ids.read_bytes())
    content[8] ^= 1
    ids.write_bytes(content)
    again = load(path)["d"]
    assert again.fingerprint == wanted and again.train[0].ids[2] != content[8]
    (entry / "index.json").write_text("{")
    assert load(path)["d"].fingerprint == wanted


def test_errors_leave_no_draft(path, cached):
    with pytest.raises(DataError):
        load(path, data={"max_length": 4})
    assert list(cached.iterdir()) == []
    blocked = cached.parent.parent / "file"
    blocked.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(blocked))
        with pytest.raises(DataError, match=r"the cache folder cannot be written.*set XDG_CACHE_HOME"):
            load(path)


LIVING = """
import sys, time
from pathlib import Path
from msft.data.drafts import Draft
draft = Draft(Path(sys.argv[1]))
(draft.folder / "0.train.ids").write_bytes(b"half")
print(draft.folder, flush=True)
time.sleep(600)
"""


def test_drafts_of_killed_processes_are_swept_and_those_of_living_ones_are_not(path, cached):
    with subprocess.Popen([sys.executable, "-c", LIVING, str(cached)], stdout=subprocess.PIPE, text=True) as process:
        try:
            draft = Path(process.stdout.readline().strip())
            assert (draft / "0.train.ids").read_bytes() == b"half"
            load(path)
            assert (draft / "0.train.ids").is_file(), "another process is still writing it"
        finally:
            process.kill()
    assert draft.is_dir(), "a killed process leaves its draft"
    load(path, max_samples=50)
    assert not draft.exists()
    assert len(list(cached.iterdir())) == 2
