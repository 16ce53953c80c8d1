"""Rows and their places; what is wrong with a source is said with file and line, never with its content."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msft.config.dataset_section import DatasetConfig
from msft.core.errors import DataError
from msft.data.sources import Source


def source(path, **keys):
    return Source(DatasetConfig.model_validate({"id": "d", "path": str(path), **keys}), seed=20)


def refused(made, **keys):
    with pytest.raises(DataError) as caught:
        made.rows(**keys)
    return str(caught.value)


def test_json_lines_know_their_lines_and_keep_odd_separators(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": "x\u2028y\\u0085"}\n\n{"a": 1}\r\n', encoding="utf-8")
    rows = source(path).rows()
    assert [(row.line, dict(row.values)) for row in rows] == [(1, {"a": "x\u2028y\x85"}), (3, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"secret": 1', "invalid JSON"),
        (b'["secret"]', "found a list, not an object"),
        (b'{"secret": 1, "secret": 2}', "the key 'secret' appears twice"),
        (b'{"x": {"b": 1, "b": 2}}', "the key 'b' appears twice"),
        (b'{"x": NaN}', "NaN is not a JSON value"),
        (b'{"x": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"x": 1e999}', "too large"),
        (b'{"x": "\xff"}', "not valid UTF-8"),
        (b'{"x": "\\ud800"}', "a lone surrogate"),
        (b'{"x": ' + b"[" * 100_000, "invalid JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "invalid JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, found):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"x": 1}\n' + line + b"\n")
    message = refused(source(path))
    assert message.startswith(f"{path}:2 datasets.d: ") and found in message and len(message) < 400


def test_all_bad_lines_are_collected_and_the_first_twenty_shown(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join('{"x":' + " " * number + "oops}\n" for number in range(30)))
    lines = refused(source(path)).splitlines()
    assert len(lines) == 21 and f"{path}:20 " in lines[19] and lines[20] == "... and 10 more"


def test_a_problem_that_many_lines_have_is_shown_once_with_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n' + "oops\n" * 30 + '{"x":\n')
    first, second = refused(source(path)).splitlines()
    assert first.startswith(f"{path}:2 ") and " (also in lines 3, 4, 5, 6, 7 and 24 more). Fix: give one" in first
    assert second.startswith(f"{path}:32 ")
    path.write_text("oops\n" * 10_050)  # of which so many are remembered
    told = refused(source(path)).splitlines()
    assert "and 9994 more)" in told[0] and told[1] == "... and 50 more"
    path.write_text("oops\n" * 3)
    assert [line.split(" ")[0] for line in refused(source(path)).splitlines()] == [f"{path}:{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("no/file.jsonl", "there is no file no/file.jsonl. Fix: check the path, which is relative to the folder of"),
        ("no_such*.jsonl", "there is no file that fits no_such*.jsonl. Fix: check the pattern, which is relative to"),
        ("./folder", "there is no file"),
        ("what is this?", "neither a file nor a hub id"),
        ("a/b/c", "neither a file nor a hub id"),
        ("reasoning_gym:chain_sun", "did you mean 'chain_sum'?"),
    ],
)
def test_sources_that_are_not_there(path, found):
    assert found in refused(source(path))


def test_empty_and_unknown_files(tmp_path):
    (tmp_path / "a.jsonl").write_text(" \n")
    (tmp_path / "a.txt").write_text("x")
    assert "the file is empty" in refused(source(tmp_path / "a.jsonl"))
    assert "no known ending" in refused(source(tmp_path / "a.txt"))


@pytest.mark.parametrize("name", ["a.JSONL", "a.ndjson", "a.Json", "a.CSV", "a.TSV", "a.Parquet"])
def test_endings_mean_the_same_in_capitals(tmp_path, name):
    path = tmp_path / name
    if name == "a.Parquet":
        pq.write_table(pa.table({"k": ["x"], "v": ["y"]}), path)
    elif name in ("a.CSV", "a.TSV"):
        path.write_text("k,v\nx,y\n" if name == "a.CSV" else "k\tv\nx\ty\n")
    else:
        path.write_text('[{"k": "x", "v": "y"}]' if name == "a.Json" else '{"k": "x", "v": "y"}\n')
    assert [row.values for row in source(path).rows()] == [{"k": "x", "v": "y"}]
    assert [row.values for row in source(tmp_path / f"*{path.suffix}").rows()] == [{"k": "x", "v": "y"}]


@pytest.mark.parametrize("path", ["/no/such/file.jsonl", "/no/such/*.jsonl", "~/no/such.jsonl"])
def test_an_absolute_path_is_relative_to_nothing(path):
    assert re.search("Fix: check the (path|pattern)$", refused(source(path)))


def test_compressed_files_are_named_and_not_passed_over(tmp_path):
    for name in ("train.jsonl.gz", "train-2.jsonl"):
        (tmp_path / name).write_text('{"k": "x"}\n')
    unpack = "train.jsonl.gz is compressed, and is not read. Fix: unpack it"
    assert unpack in refused(source(tmp_path / "train.jsonl.gz"))
    assert unpack in refused(source(tmp_path))
    (tmp_path / "train.jsonl").write_text('{"k": "x"}\n')
    assert len(source(tmp_path).rows()) == 2


def test_where_takes_rows_by_value_and_type(tmp_path):
    path = tmp_path / "a.jsonl"
    values = [{"k": "x"}, {"k": 1}, {"k": True}, {"k": None}, {"other": 1}, {"k": "y"}]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    made = source(path)

    def taken(where):
        return [row.line for row in made.rows(where=where)]

    assert taken({"k": "x"}) == [1] and taken({"k": 1}) == [2] and taken({"k": True}) == [3]
    assert taken({"k": ("x", "y")}) == [1, 6] and taken({"k": None}) == [4, 5]
    assert "did you mean 'other'?" in refused(made, where={"othr": 1})
    assert "none of the 6 rows" in refused(made, where={"k": "z"})


def test_a_file_has_one_split_only(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    assert "use" not in str(source(tmp_path / "a.jsonl").rows())
    assert "single split, but split: test" in refused(source(tmp_path / "a.jsonl"), split="test")


def test_globs_read_every_file_in_order(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"v": name}) + "\n")
    assert [row.values["v"] for row in source(tmp_path / "*.jsonl").rows()] == ["a", "b"]


def test_csv_has_texts_and_lines(tmp_path):
    (tmp_path / "a.csv").write_text("q,a\none,1\ntwo,2\n")
    rows = source(tmp_path / "a.csv").rows()
    assert [(row.values["q"], row.values["a"], row.line) for row in rows] == [("one", "1", 2), ("two", "2", 3)]


def test_reasoning_gym_repeats_itself_and_never_a_question():
    options = {"size": 60, "seed": 3, "min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    rows, again = (source("reasoning_gym:chain_sum", config=options).rows() for _ in range(2))
    questions = [row.values["question"] for row in rows]
    assert list(rows) == list(again) and len(set(questions)) == len(questions) > 20
    assert all(isinstance(row.values["answer"], str) for row in rows)
    assert "refused its config" in refused(source("reasoning_gym:chain_sum", config={"min_termz": 2}))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_that_changed_behind_its_time_and_size_is_read_anew(tmp_path, monkeypatch, kind):
    """The `datasets` library alone would go on with what it has converted before."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / f"a.{kind}"

    def write(letter):
        made = pa.table({"prompt": [f"{letter}{n}" for n in range(9)], "completion": ["c"] * 9})
        if kind == "parquet":
            pq.write_table(made, file, compression="none", use_dictionary=False)
        else:
            file.write_text("prompt,completion\n" + "".join(f"{letter}{n},c\n" for n in range(9)))

    def first():
        dataset = DatasetConfig.model_validate({"id": "d", "path": str(file)})
        source = Source(dataset, 0)
        return source.identity, source.rows()[0].values["prompt"]

    write("a")
    before = file.stat()
    known, value = first()
    assert value == "a0"
    write("b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    identity, value = first()
    assert value == "b0"
    assert identity != known


def test_a_reasoning_gym_task_that_draws_from_sets_is_the_same_in_every_process() -> None:
    """`ransom_note` draws from a set of letters, whose order Python changes from one process to the next."""
    program = """
from msft.config.dataset_section import DatasetConfig
from msft.data.sources import Source
dataset = DatasetConfig(id="d", path="reasoning_gym:ransom_note", config={"size": 20})
print([row.values["question"] for row in Source(dataset, 20).rows()])
"""
    texts = {
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_files_of_a_folder_that_are_not_read_are_noted_once(tmp_path):
    for name in ("train.jsonl", "train_more.jsonl", "test.jsonl", "extra.jsonl", "b/old.csv", ".hidden.jsonl", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"x": 1}\n')
    made = source(tmp_path)
    assert [len(made.rows(split=split)) for split in ("train", "test")] == [2, 1]
    assert made.notes == [
        f"{tmp_path}: not read, as their names say no split: b/old.csv, extra.jsonl. Fix: name a file of training rows "
        "train_old.csv or the like, or move it away"
    ]
    (tmp_path / "b" / "old.csv").unlink()
    (tmp_path / "extra.jsonl").unlink()
    again = source(tmp_path)
    assert len(again.rows()) == 2 and again.notes == []


def test_a_pattern_finds_hidden_files_only_where_it_asks_for_them(tmp_path):
    for name in ("a.jsonl", ".a.jsonl", ".checkpoints/b.jsonl", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"name": name}) + "\n")

    def names(pattern):
        return [row.values["name"] for row in source(f"{tmp_path}/{pattern}").rows()]

    assert names("*.jsonl") == ["a.jsonl"] and names("*/*.jsonl") == ["sub/c.jsonl"]
    assert names("**/*.jsonl") == ["a.jsonl", "sub/c.jsonl"]
    assert names(".*.jsonl") == [".a.jsonl"] and names(".check*/*.jsonl") == [".checkpoints/b.jsonl"]
    assert "there is no file that fits" in refused(source(f"{tmp_path}/.ch*/.*.jsonl"))
