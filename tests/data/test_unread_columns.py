"""Columns that look like a part of the input, and that nothing reads, are named in one note."""

from __future__ import annotations

import pytest
from test_load_tasks import load, write  # noqa: F401

PASSAGE = "In the {n}th year the river took the bridge."
LOST = " and not used: the model never sees "


def rows(**columns):
    """Thirty rows; `{n}` in a text is the number of the row."""
    return [{name: text.replace("{n}", str(n)) for name, text in columns.items()} for n in range(30)]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"question": "when {n}?", "answer": "then", "passage": PASSAGE}, "passage"),  # BoolQ
        ({"question": "when {n}?", "answer": "then", "context": PASSAGE}, "context"),  # SQuAD
        ({"instruction": "say when {n}", "output": "then", "context": PASSAGE}, "context"),  # Dolly
        ({"prompt": "when {n}?", "completion": "then", "document": PASSAGE}, "document"),
    ],
)
def test_a_passage_that_no_format_reads_is_noted(write, columns, name):  # noqa: F811
    (note,) = load({"id": "d", "path": write("a", rows(**columns))})["d"].notes
    fix = f"Fix: give a template with {{{name}}}, or remove the column"
    assert note == f"the column {name} is filled in 30 rows{LOST}it. {fix}"


def test_several_columns_are_one_note_and_empty_ones_are_none(write):  # noqa: F811
    given = rows(question="when {n}?", answer="then", context=PASSAGE, history="{n} hi", article="")
    given[7]["context"] = None
    (note,) = load({"id": "d", "path": write("a", given)})["d"].notes
    said = f"the columns context (in 29 rows) and history (in 30 rows) are filled{LOST}them. Fix: give a template with"
    assert note == f"{said} {{context}} and {{history}}, or remove the columns"


def test_nothing_is_noted_where_the_passage_is_read(write):  # noqa: F811
    path = write("a", rows(question="when {n}?", answer="then", passage=PASSAGE, source="a book"))
    template = {"prompt": "{passage}\nQuestion: {question}\n", "completion": "{answer}"}
    assert not load({"id": "d", "path": path, "template": template})["d"].notes
    assert not load({"id": "d", "path": path, "columns": {"question": "passage", "answer": "question"}})["d"].notes
    written = write("b", rows(prompt=f"{PASSAGE} When {{n}}?", completion="then", passage=f" {PASSAGE}\n"))
    assert not load({"id": "d", "path": written})["d"].notes
