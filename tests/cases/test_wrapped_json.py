"""A .json file that is one object around its rows is refused, and never a table of one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from texts_of_data import completions, loaded, refusal

from msft.config.dataset_section import DatasetConfig
from msft.data.sources import Source

ROWS = [{"prompt": f"Say {n}:", "completion": f" {n}"} for n in range(8)]
ONE = "the file is one object, not an array of rows"


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"data": ROWS}, "data"), ({"version": "1", "train": ROWS, "test": ROWS}, "train"),
        ({"name": "x", "info": {"licence": "y"}, "examples": ROWS[:1]}, "examples"),
        ({"columns": ["prompt", "completion"], "data": [["a", "b"], ["c", "d"]]}, "data"),
    ],
)  # fmt: skip
def test_rows_under_a_key(tmp_path: Path, values: Any, key: str, indent: int | None) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(values, indent=indent))
    assert f"{file} datasets.d: {ONE}: its rows seem to be under '{key}'. Fix: write the array" in refusal(file)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}}),  # pandas' to_json()
        json.dumps({"prompt": ["a", "b"], "completion": ["c", "d"]}),
        json.dumps({"0": ROWS[0], "1": ROWS[1]}),
        json.dumps(ROWS[0], indent=2),
    ],
)
def test_columns_and_rows_over_several_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert f"{ONE}. Fix: give an array of objects, or one object a line as .jsonl" in refusal(tmp_path / "a.json")


def test_arrays_and_lines_stay_as_they_were(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    (tmp_path / "lines.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name in ("array.json", "lines.json"):
        assert sorted(completions(loaded(tmp_path / name))) == [f" {n}" for n in range(8)]
    for row in ({"messages": turns, "id": [{"a": 1}]}, ROWS[0], {"data": ROWS}):
        ending = "jsonl" if "data" in row else "json"
        file = tmp_path / f"one.{ending}"
        file.write_text(json.dumps(row) + "\n")
        expected = "messages" in row
        if expected:
            row.pop("id")
            file.write_text(json.dumps(row) + "\n")
        assert [dict(made.values) for made in Source(DatasetConfig(id="d", path=str(file)), 0).rows()] == [row]
