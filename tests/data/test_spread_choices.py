"""Choices that lie in several columns: whatever a data set calls its answer, the right choice is the right one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from msft.config.dataset_section import DatasetConfig
from msft.config.reader import dump, load
from msft.core.errors import ConfigError, DataError
from msft.data.choices import choices_of
from msft.data.detect import detect
from msft.data.formats import Sample
from msft.data.sources import Row

SCIQ = {"distractor1": "w", "distractor2": "x", "distractor3": "y", "correct_answer": "z"}
OPS = {"opa": "w", "opb": "x", "opc": "y", "opd": "z"}


def read(rows: list[dict[str, Any]], choices: Any, answer: str, **keys: Any) -> list[Sample]:
    columns = {"question": "question", "choices": choices, "answer": answer}
    dataset = DatasetConfig.model_validate({"id": "d", "path": "p", "columns": columns, **keys})
    made = [Row({"question": "Q", **values}, "f.jsonl", number, number) for number, values in enumerate(rows, 1)]
    form = detect(dataset, made)
    assert form.measure.name == "choice"
    return [form.sample(row) for row in made]


@pytest.mark.parametrize(
    ("answer", "right"), [(0, "w"), (3, "z"), ("2", "y"), ("B", "x"), ("z", "z")], ids=lambda value: repr(value)
)
def test_a_list_counts_from_0_or_a_or_by_the_text(answer: object, right: str) -> None:
    (sample,) = read([{**OPS, "cop": answer}], list(OPS), "cop")
    assert sample.options == (" w", " x", " y", " z")
    assert (sample.options[sample.answer], sample.completion) == (f" {right}", f" {right}")


@pytest.mark.parametrize("answer", [1, "1", 2, "2"])
def test_names_before_the_columns_are_what_the_answer_says(answer: object) -> None:
    """winogrande: a position from 0 would be the other one."""
    rows = [{"option1": "w", "option2": "x", "answer": answer}]
    (sample,) = read(rows, {"1": "option1", "2": "option2"}, "answer")
    assert sample.completion == (" w" if str(answer) == "1" else " x")
    assert sample.options[sample.answer] == sample.completion


def test_positions_from_1_are_refused_where_no_names_are_given() -> None:
    rows = [{"option1": "w", "option2": "x", "answer": "2"}]
    with pytest.raises(ValueError, match=r"the answer is not a position \(from 0\), label or text of a choice"):
        read(rows, ["option1", "option2"], "answer")


def test_an_answer_column_among_the_choices_is_the_right_one_and_stands_anywhere() -> None:
    texts = [{column: f"{text}{number}" for column, text in SCIQ.items()} for number in range(400)]
    samples = read(texts, list(SCIQ), "correct_answer", scorer={"name": "choice", "of": "letter"})
    places = Counter(sample.answer for sample in samples)
    assert all(70 < places[place] < 130 for place in range(4)), "a letter must not give the answer away"
    for number, sample in enumerate(samples):
        listed = dict(line.split(". ", 1) for line in sample.prompt.splitlines()[1:-1])
        assert sorted(listed.values()) == [f"{text}{number}" for text in "wxyz"]
        assert listed[sample.completion.strip()] == f"z{number}"
    assert [s.answer for s in read(texts[::-1], list(SCIQ)[::-1], "correct_answer")[::-1]] == [
        s.answer for s in samples
    ], "the order depends on the texts alone"


def test_a_distractor_that_equals_the_answer_is_left_out() -> None:
    (sample,) = read([SCIQ | {"distractor2": "z"}], list(SCIQ), "correct_answer")
    assert sample.options[sample.answer] == " z"
    assert sorted(sample.options) == [" w", " y", " z"]


def test_what_a_row_may_lack() -> None:
    with pytest.raises(ValueError, match="a choice is empty or not text"):
        read([{**OPS, "cop": 1}, {**OPS, "opd": None, "cop": 1}], list(OPS), "cop")
    with pytest.raises(ValueError, match="the answer is not a position"):
        read([{**OPS, "cop": 1}, {**OPS, "cop": 1.5}], list(OPS), "cop")
    with pytest.raises(ValueError, match="the answer is none of the labels"):
        read([{**OPS, "cop": 1}], dict(zip("abcd", OPS, strict=True)), "cop")
    with pytest.raises(DataError, match=r"datasets\.d\.columns\.choices: no row has a column 'opx'. Fix: did you"):
        read([{**OPS, "cop": 1}], ["opa", "opx"], "cop")
    with pytest.raises(DataError, match=r"columns\.choices: the column 'ope' is null in all of the 1 rows"):
        read([{**OPS, "ope": None, "cop": 1}], ["opa", "ope"], "cop")


def test_choices_without_an_answer_are_refused() -> None:
    dataset = DatasetConfig.model_validate({"id": "d", "path": "p", "columns": {"choices": list(OPS)}})
    with pytest.raises(DataError, match=r"datasets\.d\.columns\.answer: choices in several columns need an answer"):
        detect(dataset, [Row({"question": "Q", **OPS}, "f.jsonl", 1, 1)])


def test_letters_of_the_choices_own_are_taken_off_where_all_have_theirs() -> None:
    assert choices_of(["A)21", "B) 22"], "B") == (("21", "22"), 1)
    assert choices_of(["A)21", "B)22"], "B)22") == (("21", "22"), 1)
    for kept in (["A)1", "C)2"], ["A)1", "2"], ["A", "B"], ["A)", "B)"]):
        assert choices_of(kept, 0)[0] == tuple(kept)


CONFIG = "model: {{name_or_path: x}}\ndatasets:\n  - id: a\n    path: owner/name\n    columns: {columns}\noutput: o\n"


@pytest.mark.parametrize(
    "columns", ["{choices: [a, b], answer: c}", "{choices: {1: a, 2: b}, answer: c}", "{choices: a, answer: c}"]
)
def test_a_configuration_reads_back_equal(tmp_path: Any, columns: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.format(columns=columns))
    config = load(tmp_path / "c.yaml")
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("{answer: [a, b]}", ".answer: answer cannot have several columns. Fix: name one; only choices may"),
        ("{prompt: {1: a}}", ".prompt: prompt cannot have several columns"),
        ("{choices: [a]}", ".choices: found 1 column. Fix: name 2 to 26, one for each choice"),
        ("{choices: {1: a, 2: a}}", ".choices: the column 'a' appears twice. Fix: name each once"),
        ("{choices: [a, 3]}", ".choices: found ['a', 3]. Fix: give a column's name in quotes"),
        ("{choices: 3}", ".choices: found 3. Fix: give a column's name in quotes"),
        ("{choice: [a, b]}", ".choice"),
    ],
)
def test_what_a_configuration_may_not_say(tmp_path: Any, columns: str, found: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.format(columns=columns))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml")
    assert f"c.yaml:5 datasets.0.columns{found}" in str(caught.value), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
