"""Rows to text: detection, columns, templates, choices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msft.config.dataset_section import DatasetConfig
from msft.core.errors import DataError
from msft.data.choices import choices_of
from msft.data.detect import detect
from msft.data.sources import Row
from msft.data.templates import Template

CHOICE = {"question": "Q?", "choices": ["x", "y"], "answer": 1}


def read(rows, **keys):
    rows = rows if isinstance(rows, list) else [rows]
    made = [Row(values, "f.jsonl", number, number) for number, values in enumerate(rows, 1)]
    form = detect(DatasetConfig.model_validate({"id": "d", "path": "p", **keys}), made)
    return form, [form.sample(row) for row in made]


def texts(rows, **keys):
    sample = read(rows, **keys)[1][0]
    return sample.prompt, sample.completion


def test_detection_of_each_format():
    assert texts({"prompt": "p", "completion": "c", "x": 1}) == ("p", "c")
    assert texts({"question": "q", "answer": 7}) == ("q\n", "7")
    rows = [{"instruction": "do", "input": "this", "output": "ok"}, {"instruction": "do", "input": "", "output": "ok"}]
    assert [sample.prompt for sample in read(rows)[1]] == ["do\n\nthis\n\n", "do\n\n"]
    assert texts({"instruction": "do", "output": "ok"}) == ("do\n\n", "ok")
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    form, (sample,) = read({"messages": turns})
    assert form.conversation and list(sample.messages) == turns


def test_choices_make_the_default_scorer_and_what_is_scored_is_trained():
    form, (sample,) = read(CHOICE)
    assert form.measure.name == "choice" and form.measure.normalize == "none"
    assert (sample.prompt, sample.completion) == ("Question: Q?\nAnswer:", " y")
    assert sample.options == (" x", " y") and sample.answer == 1
    form, _ = read([CHOICE, {**CHOICE, "choices": None, "completion": "c", "prompt": "p"}][1])
    assert form.measure.name == "loss"


def test_letters():
    _, (sample,) = read(CHOICE, scorer={"name": "choice", "of": "letter"})
    assert sample.prompt == "Question: Q?\nA. x\nB. y\nAnswer:"
    assert sample.completion == " B" and sample.options == (" A", " B")


def test_template_wins_over_columns_and_columns_over_detection():
    row = {"prompt": "p", "completion": "c", "q": "Q", "a": "A"}
    assert texts(row) == ("p", "c")
    assert texts(row, columns={"prompt": "q", "completion": "a"}) == ("Q", "A")
    assert texts(row, columns={"question": "q", "answer": "a"}) == ("Q\n", "A")
    template = {"prompt": "{prompt}-{{{q}}}", "completion": "{a}"}
    assert texts(row, columns={"prompt": "q", "completion": "a"}, template=template) == ("p-{Q}", "A")
    assert texts(row, template={"prompt": "> {q}"}) == ("> Q", "c")
    assert texts({"q": "Q", "completion": "c"}, template={"prompt": "{q}"}) == ("Q", "c")
    assert texts(row | CHOICE, columns={"completion": "a"}, template={"prompt": "{q}"}) == ("Q", "A")
    assert texts({"q": "Q", "answer": 3}, template={"prompt": "{q}="}) == ("Q=", "3")


def test_template_with_a_choice_scorer():
    row = {**CHOICE, "prompt": "A. x\nB. y", "completion": " B"}
    assert texts(row, template={"prompt": "{question}"}) == ("Q?", " y")
    assert texts(row, columns={"completion": "completion"}, template={"prompt": "{question}"}) == ("Q?", " B")
    completion = {"prompt": "{question}", "completion": "\n({answer_letter}) {answer_text}"}
    _, (sample,) = read(row, template=completion)
    assert sample.completion == "\n(B) y" and sample.options == ("\n(A) x", "\n(B) y")
    exact = {"scorer": {"name": "exact_match"}, "template": {"prompt": "{question} {choices_text}"}}
    form, (sample,) = read(row, **exact)
    assert (sample.prompt, sample.completion, sample.options) == ("Q? A. x\nB. y\n", " B", ())
    assert form.measure.name == "exact_match"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p"}, "completion is missing"),
        ({"prompt": "p", "completion": None}, "completion is missing"),
        ({"prompt": "p", "completion": " \n"}, "the completion is empty"),
        ({"prompt": "", "completion": "c"}, "the prompt is empty"),
        ({"prompt": 3, "completion": "c"}, "prompt is an int, not text"),
        ({"prompt": "p", "completion": ["c"]}, "completion is a list, not text"),
    ],
)
def test_rows_without_text_say_why(row, reason):
    form, _ = read({"prompt": "p", "completion": "c"})
    with pytest.raises(ValueError, match=reason):
        form.sample(Row(row, "f", 1, 1))


@pytest.mark.parametrize(
    "turns",
    [[], "text", [{"role": "user", "content": "u"}], [{"role": "assistant"}], [{"role": "assistant", "content": 3}]],
)
def test_conversations_without_anything_to_learn(turns):
    good = {"messages": [{"role": "assistant", "content": "a"}]}
    form, _ = read(good)
    with pytest.raises(ValueError, match="messages"):
        form.sample(Row({"messages": turns}, "f", 1, 1))


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"columns": {"prompt": "questoin"}}, "did you mean 'question'?"),
        ({"template": {"prompt": "{questoin}"}}, "did you mean 'question'?"),
        ({"template": {"prompt": "{question.__class__}"}}, "no row has a column"),
        ({"template": {"prompt": "{question"}}, "a brace has no partner"),
        ({"template": {"prompt": "{question}"}}, "the template has no completion"),
        ({"template": {"prompt": "{choices_text}", "completion": "x"}}, "no row has a column 'choices_text'"),
        ({"scorer": {"name": "choice"}}, "the choice scorer needs choices"),
        ({}, "no known format has these columns: question, label"),
    ],
)
def test_configurations_that_do_not_fit_the_rows(keys, found):
    with pytest.raises(DataError) as caught:
        read({"question": "q", "label": "x"}, **keys)
    assert found in str(caught.value) and "datasets.d." in str(caught.value)


def test_a_blank_in_the_name_of_a_column_is_seen():
    """As a .csv with `prompt, completion` in its first line gives it."""
    with pytest.raises(DataError, match="has these columns: prompt, ' completion'; a name in quotes has a blank at"):
        read({"prompt": "p", " completion": "c"})


@pytest.mark.parametrize(
    ("choices", "answer", "position"),
    [
        (["x", "y"], 1, 1),
        (["x", "y"], "B", 1),
        (["x", "y"], "y", 1),
        ([1, 2.5], "A", 0),
        ({"text": ["x", "y"], "label": ["1", "2"]}, "2", 1),
        ({"text": ["A", "B"], "label": ["B", "A"]}, "A", 1),
    ],
)
def test_answers_in_every_shape(choices, answer, position):
    assert choices_of(choices, answer)[1] == position


@pytest.mark.parametrize(
    ("choices", "answer"),
    [(["x", "y"], 2), (["x", "y"], -1), (["x", "y"], True), (["x", "y"], "z"), (["B", "A"], "A"), (["x"], 0), ("xy", 0),
     (["x", " "], 0), (["x", None], 0), (["x", "y"], None), (["x"] * 27, 0)],
)  # fmt: skip
def test_answers_that_decide_nothing(choices, answer):
    with pytest.raises(ValueError):
        choices_of(choices, answer)


@given(st.text(), st.text(min_size=1).filter(lambda name: not set("{}") & set(name)), st.text(), st.text())
def test_templates_substitute_names_and_nothing_else(before, name, value, after):
    def escaped(text):
        return text.replace("{", "{{").replace("}", "}}")

    template = Template.parse(f"{escaped(before)}{{{name}}}{escaped(after)}")
    assert template.names == (name,)
    assert template.render({name: value}) == before + value + after


def test_multiple_choice_as_the_hub_has_it():
    row = {"id": "7", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    for question in ("question", "question_stem"):
        form, (sample,) = read({question: "Q?", **row})
        assert (sample.prompt, sample.completion, sample.answer) == ("Question: Q?\nAnswer:", " y", 1)
        assert form.measure.name == "choice" and form.columns == (question, "choices", "answerKey")
    assert texts({"prompt": "p", "completion": "c", **row}) == ("p", "c")
    assert read({"prompt": "p", "completion": "c", **row})[0].measure.name == "loss"
    with pytest.raises(DataError, match="no known format"):
        read({"question": "Q?", "answerKey": "2"})
