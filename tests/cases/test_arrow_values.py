"""Values of Parquet columns and of data sets of the `datasets` library are learned as what they mean."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from texts_of_data import all_loaded, completions, loaded, refusal

from msft.config.dataset_section import DatasetConfig
from msft.data.sources import Source


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parquet(path: Path, answers: Any) -> Path:
    pq.write_table(pa.table({"question": [f"{n}?" for n in range(len(answers))], "answer": answers}), path)
    return path


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([0.1, 0.25, 3.3], pa.float32()), ["0.1", "0.25", "3.3"]),
        (pa.array(np.array([0.1, 1.7, 65504], np.float16)), ["0.1", "1.7", "65500.0"]),
        (pa.array([1e20, 16777216, 1e-7], pa.float32()), ["1e+20", "16777216.0", "1e-07"]),
        (pa.array([0.1, 2 / 3, 1e22]), ["0.1", "0.6666666666666666", "1e+22"]),
        (pa.array([Decimal("1.50"), Decimal("0.10"), Decimal("1234567.00")]), ["1.50", "0.10", "1234567.00"]),
        (pa.array([datetime.date(2024, 1, 2)] * 2), ["2024-01-02"] * 2),
        (pa.array([datetime.datetime(2024, 1, 2, 3, 4)] * 2), ["2024-01-02T03:04:00"] * 2),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["007", "1.50"]).dictionary_encode(), ["007", "1.50"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_value_is_learned_in_its_own_digits(tmp_path: Path, values: Any, texts: list[str]) -> None:
    assert sorted(completions(loaded(parquet(tmp_path / "a.parquet", values)))) == sorted(texts)


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    for values, kind in ((pa.array([datetime.timedelta(1)] * 3), "timedelta"), (pa.array([b"x"] * 3), "bytes")):
        file = parquet(tmp_path / f"{kind}.parquet", values)
        assert f"{file} datasets.d.row 1: answer is a {kind}, not text" in refusal(file)


def test_short_floats_of_choices(tmp_path: Path) -> None:
    choices = pa.array([[0.1, 0.2, 0.7]] * 3, pa.list_(pa.float32()))
    table = pa.table({"question": ["a?", "b?", "c?"], "choices": choices, "answer": pa.array([1, 1, 1])})
    pq.write_table(table, tmp_path / "a.parquet")
    assert completions(loaded(tmp_path / "a.parquet")) == [" 0.2"] * 3


def classes(rows: list[Any], names: list[str]) -> datasets.Dataset:
    features = datasets.Features(question=datasets.Value("string"), answer=datasets.ClassLabel(names=names))
    columns = {"question": [f"{n}?" for n in range(len(rows))], "answer": rows}
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_class_is_learned_by_its_name(tmp_path: Path) -> None:
    made = classes([0, 1, 1], ["negative", "positive"])
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "a.parquet", tmp_path / "saved"):
        assert sorted(completions(loaded(path))) == ["negative", "positive", "positive"]


def test_classes_in_where_and_in_names_of_sub_datasets(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    classes([0, 1, 1, 0, 1, 0], ["no", "yes"]).to_parquet(file)
    rows = Source(DatasetConfig(id="d", path=str(file)), 0).rows(where={"answer": "yes"})
    assert [row.number for row in rows] == [2, 3, 5]
    said = refusal(file, where={"answer": 1})
    assert "where: none of the 6 rows" in said and "answer has 'no', 'yes': name one of these" in said
    assert list(all_loaded(file, split_by="answer")) == ["d.no", "d.yes"]


def test_an_unknown_class_is_missing_and_classes_in_lists_have_names(tmp_path: Path) -> None:
    classes([0, -1, None], ["no", "yes"]).to_parquet(tmp_path / "a.parquet")
    rows = Source(DatasetConfig(id="d", path=str(tmp_path / "a.parquet")), 0).rows()
    assert [row.values["answer"] for row in rows] == ["no", None, None]
    features = datasets.Features(tags=datasets.List(datasets.ClassLabel(names=["a", "b"])))
    datasets.Dataset.from_dict({"tags": [[0, 1], []]}, features=features).to_parquet(tmp_path / "b.parquet")
    rows = Source(DatasetConfig(id="d", path=str(tmp_path / "b.parquet")), 0).rows()
    assert [row.values["tags"] for row in rows] == [["a", "b"], []]


@pytest.mark.parametrize("cache", ["file/below", "file", "/proc/none/cache"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: Any, cache: str) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / cache)
    message = refusal(parquet(tmp_path / "a.parquet", ["x", "y"]))
    assert f"the cache folder {tmp_path / cache} of the datasets library cannot be written" in message
    assert "set HF_DATASETS_CACHE" in message and "hub" not in message


def test_no_cache_is_needed_for_text_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("/dev/null/no"))
    (tmp_path / "a.csv").write_text("question,answer\na,1\nb,2\nc,3\n")
    assert sorted(completions(loaded(tmp_path / "a.csv"))) == ["1", "2", "3"]


def test_an_error_of_the_library_names_its_cause_and_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        try:
            raise pa.ArrowInvalid("the column is odd")
        except pa.ArrowInvalid as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    monkeypatch.setattr(datasets, "load_dataset", fails)
    message = refusal(parquet(tmp_path / "a.parquet", ["x", "y"]))
    assert "DatasetGenerationError: An error occurred: ArrowInvalid: the column is odd" in message
    assert "hub" not in message


@pytest.mark.parametrize("names", [["prompt", "prompt", "completion"], ["prompt", "completion", "completion"]])
def test_a_column_that_appears_twice_is_named(tmp_path: Path, names: list[str]) -> None:
    """It ended in a traceback."""
    table = pa.Table.from_arrays([pa.array([text] * 12) for text in "abc"], names=names)
    pq.write_table(table, tmp_path / "d.parquet")
    twice = max(names, key=names.count)
    assert f"d.parquet datasets.d: the column '{twice}' appears twice" in refusal(path=str(tmp_path / "d.parquet"))
    once = pa.table({"prompt": ["a"] * 12, "completion": ["b"] * 12})
    pq.write_table(once, tmp_path / "c.parquet")
    assert "appears twice" in refusal(path=str(tmp_path / "*.parquet"))
