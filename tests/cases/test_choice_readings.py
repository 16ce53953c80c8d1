"""Which choice is the right one: labels are the data set's own word, and an answer with two readings is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from texts_of_data import completions, loaded, refusal

from msft.data.choices import choices_of

COLOURS = ["red", "green", "blue", "black"]


def written(path: Path, choices: Any, answers: list[Any]) -> Path:
    rows = [{"question": f"Q{n}?", "choices": choices, "answer": answer} for n, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("labels", [["1", "2", "3", "4"], [1, 2, 3, 4]])
@pytest.mark.parametrize("answers", [[1, 2, 3], ["1", "2", "3"]])
def test_labels_that_are_numbers_decide(tmp_path: Path, labels: list[Any], answers: list[Any]) -> None:
    file = written(tmp_path / "a.jsonl", {"text": COLOURS, "label": labels}, answers)
    assert sorted(completions(loaded(file))) == [" blue", " green", " red"]


@pytest.mark.parametrize(
    ("labels", "answer", "right"),
    [
        ([4, 3, 2, 1], 1, "black"), ([10, 20, 30, 40], 20, "green"), (["A", "B", "C", "D"], "D", "black"),
        ([0, 1, 2, 3], "0", "red"), ([-1, 0, 1, 2], 0, "green"), ([0.5, 1.5, 2.5, 3.5], 1.5, "green"),
        (["True", "False", "x", "y"], False, "green"), ([], 3, "black"), (None, 3, "black"),
    ],
)  # fmt: skip
def test_an_answer_is_one_of_the_labels(labels: Any, answer: Any, right: str) -> None:
    texts, position = choices_of({"text": COLOURS, "label": labels}, answer)
    assert texts[position] == right


@pytest.mark.parametrize(
    ("labels", "answer", "found"),
    [
        ([1, 2, 3, 4], 0, "none of the labels"), (["1", "2", "3", "4"], 5, "none of the labels"),
        (["A", "B", "C", "D"], 0, "none of the labels"), ([1, 1, 2, 3], 1, "the label of two choices"),
        ([1, 2, 3], 1, "the labels are not 4"), ("ABCD", "A", "the labels are not 4"), ([1, 2, 3, 4], None, "missing"),
    ],
)  # fmt: skip
def test_an_answer_that_no_label_has_is_an_error(labels: Any, answer: Any, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        choices_of({"text": COLOURS, "label": labels}, answer)


@pytest.mark.parametrize(
    ("choices", "answer"),
    [([3, 1, 2, 0], 0), (["3", "1", "2", "0"], "0"), ([3, 1, 2, 0], "0"), (["3", "1", "2", "0"], 0),
     ([1, 2, 3, 4], 2), (["2", "B", "A"], "A"), ([2, 4, 0], 2)],
)  # fmt: skip
def test_a_number_that_is_a_position_and_another_choice_is_ambiguous(tmp_path: Path, choices: Any, answer: Any) -> None:
    assert ":1 datasets.d: the answer is ambiguous" in refusal(written(tmp_path / "a.jsonl", choices, [answer] * 3))


@pytest.mark.parametrize(
    ("choices", "answer", "right"),
    [([0, 1, 2, 3], 2, "2"), (["0", "1"], "1", "1"), ([10, 20, 30], 20, "20"), ([10, 20, 30], 1, "20"),
     (["x", "2", "y"], "2", None), ([0.5, 1.5], 1.5, "1.5"), ([3, 1, 2, 0], "A", "3"), (["10", "20"], "0", "10")],
)  # fmt: skip
def test_one_reading_or_two_that_agree(choices: Any, answer: Any, right: str | None) -> None:
    if right is None:
        with pytest.raises(ValueError, match="ambiguous"):
            choices_of(choices, answer)
        return
    texts, position = choices_of(choices, answer)
    assert texts[position] == right


@pytest.mark.parametrize(
    ("answer_is", "choices", "answer", "right"),
    [("position", ["3", "1", "2", "0"], 0, "3"), ("position", ["3", "1", "2", "0"], "1", "1"),
     ("position", ["2", "B", "0"], 2.0, "0"), ("position", ["2", "B", "0"], "2.0", "0"),
     ("position_from_1", ["3", "1", "2", "0"], 1, "3"), ("position_from_1", COLOURS, "4", "black"),
     ("letter", ["2", "B", "A"], "A", "2"), ("letter", COLOURS, " c ", "blue"),
     ("text", ["3", "1", "2", "0"], 0, "0"), ("text", ["2", "B", "A"], "A", "A"), ("text", [0.5, 1.5], 1.5, "1.5")],
)  # fmt: skip
def test_the_configuration_says_which_reading_is_meant(
    tmp_path: Path, answer_is: str, choices: Any, answer: Any, right: str
) -> None:
    data = loaded(written(tmp_path / "a.jsonl", choices, [answer] * 3), answer_is=answer_is)
    assert completions(data) == [f" {right}"] * 3


@pytest.mark.parametrize(
    ("answer_is", "answer", "found"),
    [("position", 4, "positions go from 0 to 3; if they are counted from 1: answer_is: position_from_1"),
     ("position_from_1", 0, "the answer is 0, but positions go from 1 to 4"),
     ("position_from_1", 5, "the answer is 5, but positions go from 1 to 4"), ("position", "red", "not a position"),
     ("position", 1.5, "not a position"), ("position", "-1", "not a position"),
     ("letter", 0, "not a letter from A to D"), ("letter", "E", "not a letter"),
     ("text", 2, "not the text of a choice")],
)  # fmt: skip
def test_an_answer_that_is_not_what_the_configuration_says(
    tmp_path: Path, answer_is: str, answer: Any, found: str
) -> None:
    assert found in refusal(written(tmp_path / "a.jsonl", COLOURS, [answer] * 3), answer_is=answer_is)


def test_what_the_answer_is_needs_choices_without_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,a,b,answer\n" + "q?,4,2,1\n" * 3)
    in_columns = {"choices": ["a", "b"], "answer": "answer"}
    assert completions(loaded(tmp_path / "a.csv", columns=in_columns, answer_is="position_from_1")) == [" 4"] * 3
    for columns, found in (
        ({"choices": {"1": "a", "2": "b"}, "answer": "answer"}, "gives each choice a name"),
        ({"choices": ["a", "b"], "answer": "b"}, "is one of the choices"),
        (None, "no choices and answer"),
    ):
        said = refusal(tmp_path / "a.csv", columns=columns, answer_is="position")
        assert "datasets.d.answer_is" in said and found in said
    labelled = written(tmp_path / "a.jsonl", {"text": COLOURS, "label": [1, 2, 3, 4]}, [1, 2, 3])
    assert "remove answer_is" in refusal(labelled, answer_is="position")


def test_either_of_two_equal_choices_is_right(tmp_path: Path) -> None:
    data = loaded(
        written(tmp_path / "a.jsonl", ["red", "red", "blue"], [0, 1, 2, "red"]), validation={"max_samples": 3}
    )
    assert sorted(completions(data)) == [" blue", " red", " red", " red"]
    sizes = {
        completion: len(item.options) for completion, item in zip(completions(data)[1:], data.validation, strict=True)
    }
    assert sizes[" red"] == 2  # "red" once
    assert sizes.get(" blue", 3) == 3  # two equal distractors stay


@pytest.mark.parametrize(
    ("choices", "answer", "keys", "found"),
    [
        (["a", "a", "b"], 1, {"scorer": {"name": "choice", "of": "letter"}}, "two letters are right"),
        (["a", "a"], 0, {}, "all choices have the same text"),
        (["A) a", "B) a", "C) b"], "B", {"template": {"prompt": "{question}", "completion": " {answer_letter}"}},
         "two letters are right"),
    ],
)  # fmt: skip
def test_equal_choices_that_leave_the_answer_open(
    tmp_path: Path, choices: Any, answer: Any, keys: Any, found: str
) -> None:
    assert found in refusal(written(tmp_path / "a.jsonl", choices, [answer] * 3), **keys)


def test_columns_of_a_csv_file_and_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,a,b,c,answer\n" + "q?,4,2,0,2\n" * 3)
    columns = {"choices": ["a", "b", "c"], "answer": "answer"}
    assert "ambiguous" in refusal(tmp_path / "a.csv", columns=columns)
    named = {"choices": {"0": "a", "1": "b", "2": "c"}, "answer": "answer"}
    assert completions(loaded(tmp_path / "a.csv", columns=named)) == [" 0"] * 3


@pytest.mark.parametrize(
    ("names", "choices", "right"),
    [
        (["A", "B", "C"], ["O", "A", "B"], " A"),  # the letter of a position, whatever the choices are
        (["a", "b", "c"], ["b", "c", "a"], " c"),
        (["0", "1", "2"], ["2", "0", "1"], " 0"),
        (["x", "y", "z"], ["z", "x", "y"], " y"),  # a choice
        (["1", "2", "3"], {"text": ["u", "v", "w"], "label": [3, 2, 1]}, " v"),
    ],
)  # fmt: skip
def test_an_answer_that_is_a_class(tmp_path: Path, names: list[str], choices: Any, right: str) -> None:
    assert completions(loaded(of_classes(tmp_path / "a.parquet", names, choices))) == [right] * 3


def test_a_class_that_is_counted_from_1_is_no_position(tmp_path: Path) -> None:
    file = of_classes(tmp_path / "a.parquet", ["1", "2", "3"], ["u", "v", "w"])
    assert "the answer is not a position (from 0)" in refusal(file)


def of_classes(file: Path, names: list[str], choices: Any) -> Path:
    """Three rows whose answer is the second class."""
    features = datasets.Features(
        question=datasets.Value("string"),
        choices=datasets.Dataset.from_list([{"c": choices}]).features["c"],
        answer=datasets.ClassLabel(names=names),
    )
    rows = [{"question": f"{n}?", "choices": choices, "answer": 1} for n in range(3)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    return file


def csv(path: Path, header: str, *records: str) -> Path:
    path.write_text("\n".join([header, *records * 6]) + "\n")
    return path


@pytest.mark.parametrize(
    ("header", "records", "names"),
    [
        ("question,A,B,C,D,answer", ("q,1,2,3,4,A", "r,1,2,3,4,D"), "A, D"),
        ("prompt,a,b,completion", ("q,1,2,b", "r,1,2, a "), "a, b"),
        ("instruction,input,option1,option2,output", ("q,x,1,2,option1", "r,y,1,2,option2"), "option1, option2"),
    ],
)
def test_choices_in_columns_that_nothing_reads_are_told(
    tmp_path: Path, header: str, records: tuple[str, ...], names: str
) -> None:
    """The letter of a choice was learned without the choices."""
    message = refusal(path=str(csv(tmp_path / "d.csv", header, *records)))
    assert f"is the name of a column that the model would not see ({names})" in message
    assert f"columns: {{choices: {{{', '.join(f'{name}: {name}' for name in names.split(', '))}}}}}" in message


@pytest.mark.parametrize(
    ("header", "records"),
    [
        ("question,A,B,answer", ("q,1,2,A", "r,1,2,neither")),
        ("question,answer,yes", ("q,yes,", "r,no,")),
        ("question,answer", ("q,question", "r,answer")),
        ("question,A,B,answer", ("A. one B. two,one,two,A", "A. ten B. nine,ten,nine,B")),  # the prompt has them
    ],
)
def test_answers_that_are_no_names_of_other_columns_are_learned(
    tmp_path: Path, header: str, records: tuple[str, ...]
) -> None:
    assert loaded(path=str(csv(tmp_path / "d.csv", header, *records)))
