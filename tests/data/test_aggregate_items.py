"""The items of an aggregate: all of its rows, none of which is trained on."""

from __future__ import annotations

import pytest
from test_load_tasks import load, pairs, write  # noqa: F401
from tokenizers_for_tests import CHAT, tokenizer

from msft.core.errors import DataError
from msft.data import cache


def test_all_rows_are_items_and_none_is_trained_on(write):  # noqa: F811
    exam = {
        "path": write("e", pairs(30)),
        "max_samples": 12,
        "test": {"max_samples": 5},
        "scorer": {"name": "exact_match"},
    }
    tasks = load({"id": "d", "path": write("a", pairs(40, start=100))}, aggregate=exam, data={"mixing": "equal"})
    found = tasks["aggregate"]
    assert list(tasks) == ["d", "aggregate"] and found.aggregate and not tasks["d"].aggregate
    assert (len(found.train), len(found.validation), len(found.test), found.size) == (0, 12, 5, 0)
    assert tasks["d"].size == len(tasks["d"].train)  # the mixing counts what is trained on
    texts = [{tokenizer().decode(item.options[0].ids) for item in items} for items in (found.validation, found.test)]
    assert not texts[0] & texts[1]


def test_a_training_row_that_is_one_of_its_items_is_left_out(write):  # noqa: F811
    exam = {"path": write("e", pairs(6, start=3))}
    dataset = {"id": "d", "path": write("a", pairs(40)), "validation": {"path": write("v", pairs(5, start=300))}}
    refit = {"method": {"name": "sft", "refit": True}}
    assert len(load(dataset, aggregate=exam)["d"].train) == 34
    carved = {**dataset, "validation": {"max_samples": 20}}
    whole = load(carved, aggregate=exam, **refit)["d"]
    assert len(whole.train) + len(whole.held_out) == 34  # nor does the run on all rows train on them


def test_its_texts_end_as_the_sub_datasets_teach(write):  # noqa: F811
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    talks = [{"messages": [{**turns[0], "content": f"hi {n}"}, turns[1]]} for n in range(20)]
    made = tokenizer(chat=CHAT)
    exam = {"path": write("e", pairs(6, start=30)), "scorer": {"name": "generate"}}
    tasks = load({"id": "d", "path": write("a", talks)}, aggregate=exam, made=made)
    assert set(tasks["aggregate"].ends) == set(tasks["d"].ends) and len(tasks["d"].ends) > 1


def test_the_cache_keeps_it(write, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    dataset, exam = {"id": "d", "path": write("a", pairs(30))}, {"path": write("e", pairs(6, start=300))}
    fresh, again = (load(dataset, aggregate=exam)["aggregate"] for _ in range(2))
    assert again.aggregate and again.fingerprint == fresh.fingerprint and len(again.validation) == 6
    assert "aggregate" not in load(dataset)


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"path": "no.jsonl"}, "aggregate"),
        ({"test": {"where": {"prompt": "none"}}}, "aggregate.test"),
        ({"columns": {"prompt": "no"}}, "aggregate.columns.prompt"),
        ({"test": {"max_samples": 6}}, "aggregate"),
        ({"template": {"prompt": "{no}", "completion": "a"}}, "aggregate.template.prompt"),
    ],
)
def test_an_error_names_the_key_of_the_configuration_whatever_its_id_is(write, keys, place):  # noqa: F811
    exam = {"id": "exam", "path": write("e", pairs(6, start=300))}
    with pytest.raises(DataError, match=f"{place}: .*Fix: ") as error:
        load({"id": "d", "path": write("a", pairs(30))}, aggregate=exam | keys)
    assert "datasets.exam" not in str(error.value)
