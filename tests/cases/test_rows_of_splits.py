"""Rows that name their split in a column: from Python as `msft init` does it; and what `init` says it does not use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from texts_of_data import loaded, refusal

from msft.api.inputs import Inputs
from msft.cli.init import write
from msft.core.errors import DataError

PARTS = ["train"] * 6 + ["dev"] * 2 + ["val"] + ["test"] * 3
ROWS = [{"prompt": f"p{n}", "completion": f"c{n}", "split": part} for n, part in enumerate(PARTS)]


def inputs(folder: Path, rows: Any, validation: Any = None) -> Inputs:
    held = None if validation is None else {"a": validation}
    return Inputs(folder, "model", None, {"train": {"a": rows}, "validation": held, "test": None})


def section(folder: Path, rows: Any, validation: Any = None) -> dict[str, Any]:
    made = inputs(folder, rows, validation)
    made.check()
    made.write()
    (only,) = made.dataset_sections()
    return only


def classes() -> datasets.Dataset:
    names = datasets.ClassLabel(names=["test", "train", "dev", "val", "unused"])
    return datasets.Dataset.from_list(ROWS).cast_column("split", names)


@pytest.mark.parametrize(
    "rows", [ROWS, tuple(ROWS), datasets.Dataset.from_list(ROWS), classes()], ids=lambda r: str(type(r))
)
def test_rows_from_python_are_divided_as_their_column_says(tmp_path: Path, rows: Any) -> None:
    made = section(tmp_path, rows)
    assert made["where"] == {"split": ["train"]}
    data = loaded(made.pop("path"), **{key: value for key, value in made.items() if key != "id"})
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 3, 3)


def test_splits_that_are_given_are_taken_as_given(tmp_path: Path) -> None:
    made = section(tmp_path, ROWS, [{"prompt": "p", "completion": "c"}])
    assert made["where"] == {"split": ["train"]} and set(made["validation"]) == {"path"}


@pytest.mark.parametrize(
    "parts",
    [["train"] * 12, ["train", "other"] * 6, ["train", "test", "x"] * 4, ["a", "b"] * 6, ["test"] * 12, [1, 2] * 6],
)
def test_rows_without_several_known_splits_are_taken_whole(tmp_path: Path, parts: list[Any]) -> None:
    rows = [row | {"split": part} for row, part in zip(ROWS, parts, strict=True)]
    assert set(section(tmp_path, rows)) == {"id", "path"}


def test_a_split_that_is_a_list_is_no_name(tmp_path: Path) -> None:
    """Of mixed types, which the file of the rows refuses by name."""
    rows = [row | {"split": ["test"] if number == 3 else row["split"]} for number, row in enumerate(ROWS)]
    made = inputs(tmp_path, rows)
    assert [set(section) for section in made.dataset_sections()] == [{"id", "path"}]
    with pytest.raises(DataError, match="the column 'split' has values of several types"):
        made.write()


def test_a_file_of_which_all_splits_are_trained_on_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def noted(**keys: Any) -> bool:
        notes = loaded(file, **keys).notes
        said = "the column split names dev, val, test, train, but all rows are used. Fix: choose rows with "
        both = "where: {split: train} (from Python: dataset_kwargs={'d': {'where': {'split': 'train'}}})"
        return f"{said}{both}" in notes

    assert noted(validation={"max_samples": 2})
    assert not noted(where={"split": "train"}) and not noted(where={"split": ["train", "dev", "val", "test"]})


def test_no_column_from_python_is_lost(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"p{n}"} | ({"completion": "c"} if n else {}) for n in range(4)]
    assert "row 1: completion is missing or null" in refusal(section(tmp_path, rows)["path"])
    section(tmp_path, [])


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (
            [{"a": 1}, {"a": "x"}],
            "the column 'a' has values of several types: 'x' in row 2 is unlike those before it. Fix: give all values",
        ),
        ([{"ok": 1, "b": [1]}, {"ok": 2, "b": {"c": 1}}], "the column 'b' has values of several types"),
        (["text"], "train_dataset['a']: found a str among the rows. Fix: give every row as a dict"),
    ],
)
def test_rows_that_cannot_be_written_are_named(tmp_path: Path, rows: Any, found: str) -> None:
    with pytest.raises(DataError) as caught:
        section(tmp_path, rows)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("row", "described"),
    [
        ({"prompt": "p", "completion": "c"}, "format: prompt + completion"),
        ({"prompt": "p", "completion": "c", "source": "s"}, "format: prompt + completion; not used: source"),
        ({"question": "q", "answer": "a", "completion": "c"}, "format: question + answer; not used: completion"),
        ({"question": "q", "choices": ["x", "y"], "answer": 0, "completion": "c"},
         "format: question + choices + answer; not used: completion"),
        ({"instruction": "i", "input": "", "output": "o", "completion": "c"},
         "format: instruction + input + output; not used: completion"),
        ({"text": "t", "completion": "c"}, "no known format: assign these columns with `columns` or `template`: text"),
    ],
)  # fmt: skip
def test_init_says_which_columns_it_does_not_use(tmp_path: Path, row: dict[str, Any], described: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text((json.dumps(row) + "\n") * 30)
    write(tmp_path / "data", tmp_path / "c.yaml")
    assert f"  # 30 rows; {described}" in (tmp_path / "c.yaml").read_text()


def test_a_completion_beside_text_is_not_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "t", "completion": "c"}\n' * 30)
    assert "there is a column completion besides text, which the model would not see" in refusal(tmp_path / "a.jsonl")


def test_init_takes_all_names_of_a_split_and_names_the_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [*ROWS, {"prompt": "p", "completion": "c", "split": "extra"}]
    (tmp_path / "data" / "a.tsv").write_text(
        "\n".join("\t".join(values) for values in [list(rows[0]), *(list(row.values()) for row in rows)])
    )
    write(tmp_path / "data", tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    assert "where: {split: train}  # not used: extra\n" in text and "{where: {split: [dev, val]}}" in text
