"""Groups of data sets: one validation set, and own training rows, shares and test splits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_load_tasks import load, pairs, questions, write  # noqa: F401
from test_repeated import epochs_of
from tokenizers_for_tests import tokenizer

from msft.core.clock import Clock
from msft.core.errors import DataError
from msft.core.vocabulary import Mixture
from msft.data import cache
from msft.data.order import Cursor, Order, Source, order_of


def texts(items):
    made = tokenizer()
    return [made.decode(item.options[0].ids) for item in items]


def test_a_group_is_one_sub_dataset_of_the_rows_of_its_data_sets(write):  # noqa: F811
    exact = {"scorer": {"name": "exact_match"}, "group": "both"}
    one = {"id": "one", "path": write("a", pairs(30)), "validation": {"max_samples": 6}, "test": {"max_samples": 4}}
    two = {"id": "two", "path": write("b", pairs(20, start=100)), "test": {"max_samples": 5}}
    alone = {"id": "alone", "path": write("c", pairs(20, start=200))}
    tasks = load(one | exact, alone, two | exact)
    assert list(tasks) == ["both", "alone"]
    both = tasks["both"]
    assert [(m.task, m.train, m.validation, m.test) for m in both.members] == [("one", 20, 6, 4), ("two", 15, 0, 5)]
    assert (len(both.train), len(both.validation), len(both.test), both.size) == (35, 6, 9, 35)
    assert {name: len(items) for name, items in both.tests.items()} == {"one": 4, "two": 5}
    first, second = both.each
    assert (first.task, second.task) == ("one", "two")
    assert all("say 1" in text for text in texts(second.test)) and len(second.train) == 15
    # What the search trains and scores is what a data set alone would give.
    single = load(one | {"scorer": {"name": "exact_match"}})["one"]
    assert texts(both.validation) == texts(single.validation)
    assert [list(e.ids) for e in first.train] == [list(e.ids) for e in single.train]


def test_where_nobody_says_how_to_validate_each_gives_the_same_share(write):  # noqa: F811
    def entry(name, count, start):
        return {"id": name, "path": write(name, pairs(count, start=start)), "group": "g"}

    entries = [entry("a", 400, 0), entry("b", 100, 1000), entry("c", 60, 2000)]
    members = load(*entries)["g"].members
    assert [member.validation for member in members] == [40, 10, 6]  # 10 % of 560 rows
    members = load(*entries[1:])["g"].members
    assert [member.validation for member in members] == [31, 19]  # 50 of 160, not 50 of each


def test_leaks_are_found_across_the_data_sets_of_a_group(write):  # noqa: F811
    one = {"id": "one", "path": write("a", pairs(30)), "validation": {"path": write("v", pairs(3, start=105))}}
    two = {"id": "two", "path": write("b", pairs(20, start=100))}
    both = load(one | {"group": "g"}, two | {"group": "g"})["g"]
    assert [member.train for member in both.members] == [30, 17]
    assert any("two: 3 of 20 training examples are also in a validation or test split" in note for note in both.notes)


def test_a_group_has_one_scorer_also_where_the_rows_decide_it(write):  # noqa: F811
    choice = {"id": "parity", "path": write("c", questions(30)), "group": "g"}
    plain = {"id": "echo", "path": write("p", pairs(30)), "group": "g"}
    found = r"datasets\.echo\.scorer: its validation and test items are scored by loss, and those of parity by choice: "
    with pytest.raises(DataError, match=rf"{found}.* Fix: write the same scorer"):
        load(choice, plain)
    # A data set that gives no items is not scored.
    assert load(choice | {"validation": {"max_samples": 5}}, plain)["g"].measure.name == "choice"
    single = {"id": "d", "path": write("s", [{**pairs(1)[0], "topic": "x"}]), "split_by": "topic", "group": "g"}
    with pytest.raises(DataError, match=r"datasets\.d\.x\.validation: there is no validation example in the group 'g'"):
        load(single)


def test_split_by_gives_the_data_sets_of_a_group(write):  # noqa: F811
    rows = [{**row, "topic": "xyz"[n % 3]} for n, row in enumerate(pairs(90))]
    (group,) = load({"id": "d", "path": write("a", rows), "split_by": "topic", "group": "all"}).values()
    assert [(member.task, member.dataset) for member in group.members] == [(f"d.{t}", "d") for t in "xyz"]
    assert len(group.validation) == 45  # at most half of 90


def test_the_fingerprint_and_the_cache_know_the_members(write, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    shared = {"group": "g", "test": {"max_samples": 3}}
    entries = [{"id": name, "path": write(name, pairs(30, at)), **shared} for name, at in (("a", 0), ("b", 100))]
    fresh, again = load(*entries)["g"], load(*entries)["g"]
    assert fresh.members == again.members and len(again.members) == 2
    assert {name: texts(items) for name, items in again.tests.items()} == {n: texts(i) for n, i in fresh.tests.items()}
    assert load(*entries[::-1])["g"].fingerprint != fresh.fingerprint


def test_mixing_and_repeat_count_data_sets_also_within_a_group(write):  # noqa: F811
    a = {"id": "a", "path": write("a", pairs(40)), "group": "g", "validation": {"max_samples": 10}}
    b = {"id": "b", "path": write("b", pairs(90, start=100)), "group": "g"}
    c = {"id": "c", "path": write("c", pairs(40, start=500)), "validation": {"max_samples": 10}}
    tasks = load(a, b, c, data={"mixing": "equal"})
    assert [m.taken for m in tasks["g"].members] == [50, 50] and (tasks["g"].size, tasks["c"].size) == (100, 50)
    assert [m.taken for m in load(a | {"repeat": 2.5}, b, c)["g"].members] == [75, 90]


def group_of(seed, taken, pools, batch_size=4):
    """The order of a group `g`, whose members an epoch takes so often, beside another sub-dataset."""
    ends = np.cumsum(pools)
    sources = [Source(f"m{i}", np.arange(end - pools[i], end), taken[i]) for i, end in enumerate(ends.tolist())]
    return Order(seed, {"g": sum(taken), "t": 5}, batch_size, {"g": sum(pools), "t": 5}, {"g": sources})


SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))


@given(st.integers(0, 2**32), SIZES, SIZES)
def test_an_epoch_takes_the_share_of_every_member(seed, taken, pools):
    order = group_of(seed, taken, pools)
    owner = np.repeat(np.arange(3), pools)
    found, _ = epochs_of(order, Mixture(tasks=("g", "t")), 3, batch_size=4)
    total: Counter[int] = Counter()
    for k, counts in enumerate(found, 1):
        each = Counter(int(owner[index]) for (task, index), n in counts.items() for _ in range(n) if task == "g")
        assert [each[i] for i in range(3)] == list(taken)
        total.update({index: n for (task, index), n in counts.items() if task == "g"})
        for i, (size, pool) in enumerate(zip(taken, pools, strict=True)):
            often = {total[int(index)] for index in np.flatnonzero(owner == i)}
            assert often <= {k * size // pool, -(-k * size // pool)}  # every example as often as every other


@given(
    st.integers(0, 2**32), SIZES, SIZES, st.sampled_from(["shares", "weights", "without", "passes"]), st.integers(0, 9)
)
def test_the_order_of_a_group_goes_on_from_any_cursor(seed, taken, pools, kind, at):
    mixture = Mixture(
        tasks=("g", "t"),
        shares=(0.3, 1.0) if kind == "shares" else None,
        weights=(3.0, 1.0) if kind == "weights" else None,
        without=frozenset({("g", 0)}) if kind == "without" else frozenset(),
    )

    def walk(steps, cursor):
        order, batches = group_of(seed, taken, pools), []
        for _ in range(steps):
            batch, cursor = order.batch(1, mixture, cursor)
            batches.append(batch)
        return batches, cursor

    whole, _ = walk(at + 4, Cursor())
    _, cursor = walk(at, Cursor())
    assert walk(4, Cursor.from_json(cursor.as_json()))[0] == whole[at:]
    assert all(index < sum(pools) for batch in whole for task, index in batch if task == "g")
    assert kind != "without" or ("g", 0) not in {one for batch in whole for one in batch}


def test_a_group_whose_data_sets_are_taken_once_is_trained_as_one_data_set(write):  # noqa: F811
    a = {"id": "a", "path": write("a", pairs(40)), "group": "g", "validation": {"max_samples": 10}}
    data = load(a, {"id": "b", "path": write("b", pairs(50, start=100)), "group": "g"})
    mixture = Mixture(tasks=("g",))
    assert epochs_of(order_of(data, 1, 8), mixture, 2) == epochs_of(Order(1, {"g": 80}, 8), mixture, 2)


def test_the_replayed_share_of_a_group_is_that_of_its_members_on_average():
    order = group_of(3, (30, 10), (10, 40), batch_size=8)
    mixture = Mixture(tasks=("g", "t"), shares=(0.1, 1.0))
    assert Clock(order.sizes, 8, 1.0, order.pools).instances(mixture) == 9
    found, _ = epochs_of(order, mixture, 10)  # 10 times 4: one epoch of the group
    own = Counter(
        index < 10 for counts in found for (task, index), n in counts.items() for _ in range(n) if task == "g"
    )
    assert own == {True: 30, False: 10}
