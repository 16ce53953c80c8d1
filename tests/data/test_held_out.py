"""`method.refit`: the rows that are held out for validation as training examples of the run that follows the search."""

from __future__ import annotations

import pytest
from test_load_tasks import load, pairs, write  # noqa: F401
from test_repeated import epochs_of
from tokenizers_for_tests import tokenizer

from msft.core.vocabulary import Mixture
from msft.data import cache
from msft.data.order import order_of

REFIT = {"method": {"name": "sft", "refit": True}}


def texts(examples):
    made = tokenizer()
    return [made.decode(example.ids) for example in examples]


def test_all_rows_are_those_of_the_search_and_the_held_out_ones(write):  # noqa: F811
    rows = pairs(60)
    dataset = {"id": "d", "path": write("a", rows), "validation": {"max_samples": 20}, "test": {"max_samples": 8}}
    plain, refit = load(dataset)["d"], load(dataset, **REFIT)["d"]
    assert texts(refit.train) == texts(plain.train) and (refit.size, refit.taken) == (plain.size, plain.taken)
    assert sorted(texts(refit.held_out)) == sorted(texts(item.options[0] for item in refit.validation))
    assert not plain.held_out and plain.whole_size == 32 and refit.whole_size == 52
    assert plain.fingerprint != refit.fingerprint
    whole = [refit.example(index) for index in range(52)]
    tested = set(texts(item.options[0] for item in refit.test))
    assert len(set(texts(whole))) == 52 and not set(texts(whole)) & tested


def test_a_split_that_is_read_is_not_held_out(write):  # noqa: F811
    read = {"id": "read", "path": write("a", pairs(30)), "validation": {"path": write("v", pairs(9, start=500))}}
    carved = {"id": "carved", "path": write("b", pairs(30, start=100)), "validation": {"fraction": 0.2}}
    tasks = load(read, carved, **REFIT)
    assert [len(part.held_out) for part in tasks.values()] == [0, 6]
    with pytest.raises(ValueError, match="no row is held out"):
        load(read, **REFIT)


def test_a_held_out_row_that_is_in_a_test_split_is_left_out_of_the_last_run_too(write):  # noqa: F811
    one = {"id": "one", "path": write("a", pairs(40)), "validation": {"max_samples": 20}}
    two = {"id": "two", "path": write("b", pairs(20, start=900)), "test": {"path": write("t", pairs(12))}}
    tasks = load(one, two, **REFIT)
    held, tested = (set(texts(found)) for found in (tasks["one"].held_out, _first(tasks["two"].test)))
    validated = set(texts(_first(tasks["one"].validation)))
    assert validated & tested and held == validated - tested
    assert any("held-out examples are also in a validation or test split, left out" in n for n in tasks["one"].notes)


def _first(items):
    return [item.options[0] for item in items]


def test_an_epoch_of_all_rows_takes_each_as_often_as_the_search_takes_its_own(write):  # noqa: F811
    group = {"group": "g", "validation": {"max_samples": 10}}
    a = {"id": "a", "path": write("a", pairs(40)), **group, "repeat": 2}
    b = {"id": "b", "path": write("b", pairs(70, start=100)), **group, "repeat": 0.5}
    c = {"id": "c", "path": write("c", pairs(25, start=300)), "validation": {"max_samples": 5}}
    data = load(a, b, c, **REFIT)
    assert {task: (part.size, part.whole_size) for task, part in data.items()} == {"g": (90, 115), "c": (20, 25)}
    order = order_of(data, 7, 8, whole=True)
    (first, second), _ = epochs_of(order, Mixture(tasks=("g", "c")), 2)
    of = [range(30), range(30, 90), range(90, 100), range(100, 110)]  # a, b, held out of a, and of b
    counts = [[sum(one["g", index] for index in part) for part in of] for one in (first, second)]
    assert all(one[0] + one[2] == 80 and one[1] + one[3] == 35 for one in counts)
    assert {first["g", index] for part in (of[0], of[2]) for index in part} == {2}
    assert {first["g", index] + second["g", index] for part in (of[1], of[3]) for index in part} == {1}
    assert {first["c", index] for index in range(25)} == {1}
    searching = order_of(data, 7, 8)
    taken = {one for counts in epochs_of(searching, Mixture(tasks=("g", "c")), 3)[0] for one in counts}
    assert max(index for task, index in taken if task == "g") == 89  # never a held-out one


def test_the_cache_keeps_what_is_held_out(write, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    dataset = {"id": "d", "path": write("a", pairs(40)), "validation": {"max_samples": 10}}
    fresh, plain, again = load(dataset, **REFIT)["d"], load(dataset)["d"], load(dataset, **REFIT)["d"]
    assert texts(again.held_out) == texts(fresh.held_out) and len(again.held_out) == 10
    assert not len(plain.held_out)
