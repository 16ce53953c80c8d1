"""Options that begin with another option are counted: without normalisation they can never win."""

from __future__ import annotations

import numpy as np
import pytest
from test_load_tasks import load, write  # noqa: F401
from tokenizers_for_tests import tokenizer

from msft.data.examples import Example, Item, Measure
from msft.data.items import notes_of_choices

NUMBERS, WORDS = ["1", "7", "100", "10"], ["yes", "no", "may be"]


def rows(*choices, start=0):
    return [{"question": f"number {n}?", "choices": given, "answer": 0} for n, given in enumerate(choices, start)]


@pytest.fixture
def dataset(write):  # noqa: F811
    splits = {"validation": rows(NUMBERS, WORDS, NUMBERS, start=100), "test": rows(NUMBERS, WORDS, start=200)}
    read = {kind: {"path": write(kind, given)} for kind, given in splits.items()}
    return {"id": "d", "path": write("a", rows(*[NUMBERS] * 9)), **read}


def test_items_with_such_options_are_counted_by_split(dataset):
    (note,) = load(dataset)["d"].notes
    assert note == (
        "in 2 of 3 validation items and 1 of 2 test items one option begins with the tokens of another one, so it can "
        "never win (scorer: choice). Fix: write scorer: {name: choice, normalize: token}, or of: letter"
    )
    grouped = load(dataset | {"group": "g"}, dataset | {"id": "e", "group": "g"}, data={"leaks": "warn"})["g"]
    assert [each for each in grouped.notes if each.startswith("e: in 2 of 3")]


@pytest.mark.parametrize(
    "scorer", [{"normalize": "token"}, {"normalize": "byte"}, {"of": "letter"}, {"name": "exact_match"}]
)
def test_nothing_is_noted_where_they_can_win(dataset, scorer):
    assert not load(dataset | {"scorer": {"name": "choice"} | scorer})["d"].notes


def test_nothing_is_noted_where_no_option_begins_with_another(dataset, write):  # noqa: F811
    plain = {"validation": {"path": write("w", rows(WORDS, ["no", "an", "on", "a no", "no"], start=100))}}
    del dataset["test"]
    assert not load(dataset | plain)["d"].notes


def test_an_aggregate_is_looked_at_too(dataset, write):  # noqa: F811
    trained = {"id": "d", "path": dataset["path"], "scorer": "exact_match"}
    chooser = {"path": write("c", rows(WORDS, NUMBERS, start=300))}
    assert "in 1 of 2 validation items one option begins" in load(trained, aggregate=chooser)["aggregate"].notes[0]


def test_tokens_decide_not_texts():
    """`10` may be one token; and thousands of items are looked at in a moment."""
    made = tokenizer()

    def option(*tokens):
        ids = np.array([*made("passage " * 100)["input_ids"], *tokens], np.int32)
        return Example(ids=ids, trained=np.arange(len(ids)) >= len(ids) - len(tokens))

    separate = Item(options=(option(300), option(77), option(44, 300), option(300 * 256, 5)))
    nested = Item(options=(option(9, 8, 7), option(9), option(8)))
    measure = Measure(name="choice")
    assert not notes_of_choices({"test": [separate] * 20_000}, measure)
    (note,) = notes_of_choices({"test": [separate, nested] * 10_000, "validation": []}, measure)
    assert note.startswith("in 10,000 of 20,000 test items one option")
