"""The order where an epoch takes another number of a sub-dataset than it has examples (design 3.1)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msft.core.clock import Clock, per_epoch
from msft.core.vocabulary import Mixture
from msft.data.order import Cursor, Order

TASKS = ("a", "b", "c")
POOLS = st.fixed_dictionaries({task: st.integers(1, 12) for task in TASKS})
SIZES = st.fixed_dictionaries({task: st.integers(1, 40) for task in TASKS})
SEEDS, BATCHES = st.integers(0, 2**32), st.integers(1, 9)


def epochs_of(order: Order, mixture: Mixture, number: int, cursor: Cursor | None = None, *, batch_size: int = 8):
    """Counts of (sub-dataset, index) in each of the next epochs."""
    steps = Clock(order.sizes, batch_size, 1.0, order.pools).steps_per_epoch(mixture)
    cursor, found = cursor or Cursor(), []
    for _ in range(number):
        counts: Counter[tuple[str, int]] = Counter()
        for _ in range(steps):
            batch, cursor = order.batch(2, mixture, cursor)
            counts.update(batch)
        found.append(counts)
    return found, cursor


@given(SEEDS, SIZES, BATCHES, POOLS)
def test_every_example_is_taken_as_often_as_every_other(seed, sizes, batch_size, pools):
    """Over k epochs, floor or ceil of k times m / n; in each of them at least floor of m / n."""
    found, cursor = epochs_of(Order(seed, sizes, batch_size, pools), Mixture(tasks=TASKS), 4, batch_size=batch_size)
    total: Counter[tuple[str, int]] = Counter()
    for k, counts in enumerate(found, 1):
        total += counts
        for task in TASKS:
            size, pool = sizes[task], pools[task]
            once = [counts[task, index] for index in range(pool)]
            assert sum(once) == size and min(once) >= size // pool and max(once) <= size // pool + 2
            each = {total[task, index] for index in range(pool)}
            assert each <= {k * size // pool, -(-k * size // pool)}
    assert set(total) == {key for key in total if key[1] < pools[key[0]]}
    assert cursor.epoch == 4


@given(SEEDS, SIZES, BATCHES, POOLS, st.integers(0, 30), st.sampled_from(["passes", "shares", "weights", "without"]))
def test_restart_from_any_cursor_goes_on_identically(seed, sizes, batch_size, pools, at, kind):
    mixture = Mixture(
        tasks=TASKS,
        shares=(1.0, 0.3, 1.0) if kind == "shares" else None,
        weights=(1.0, 2.0, 3.0) if kind == "weights" else None,
        without=frozenset({("b", 0), ("c", pools["c"] - 1)}) if kind == "without" else frozenset(),
    )

    def walk(steps, cursor):
        order, batches = Order(seed, sizes, batch_size, pools), []
        for _ in range(steps):
            batch, cursor = order.batch(2, mixture, cursor)
            batches.append(batch)
        return batches, cursor

    whole, _ = walk(at + 6, Cursor())
    _, cursor = walk(at, Cursor())
    assert walk(6, Cursor.from_json(json.loads(json.dumps(cursor.as_json()))))[0] == whole[at:]


@given(SEEDS, SIZES, POOLS, st.sampled_from([0.1, 0.25, 0.5]))
def test_a_replay_share_is_one_of_what_an_epoch_takes(seed, sizes, pools, share):
    mixture = Mixture(tasks=TASKS, shares=(share, 1.0, 1.0))
    found, _ = epochs_of(Order(seed, sizes, 8, pools), mixture, 3)
    expected = -(-round(sizes["a"] * share * 100) // 100)
    total: Counter[int] = Counter()
    for counts in found:
        assert sum(n for (task, _), n in counts.items() if task == "a") == expected
        total.update({index: counts["a", index] for index in range(pools["a"])})
    assert max(total.values()) - min(total.values()) <= 1, "the examples of a share rotate, too"


@given(SEEDS, SIZES, POOLS)
def test_sampling_draws_an_epochs_number_from_the_different_examples(seed, sizes, pools):
    found, cursor = epochs_of(Order(seed, sizes, 8, pools), Mixture(tasks=TASKS, weights=(1.0, 1.0, 2.0)), 3)
    assert sum(found, Counter()).total() == 3 * sum(sizes.values()) == sum(cursor.drawn.values())
    for task in TASKS:
        each = [sum(counts[task, index] for counts in found) for index in range(pools[task])]
        assert max(each) - min(each) <= 1


@given(SEEDS, SIZES, POOLS, st.data())
def test_examples_that_are_left_out_are_not_taken_and_the_others_no_more_often(seed, sizes, pools, data):
    out = frozenset(("a", i) for i in range(pools["a"]) if data.draw(st.booleans()))
    mixture, order = Mixture(tasks=TASKS, without=out), Order(seed, sizes, 8, pools)
    cursor = None
    for _ in range(3):
        (counts,), cursor = epochs_of(order, mixture, 1, cursor)
        assert not set(counts) & out
        of_a = [counts["a", i] for i in range(pools["a"]) if ("a", i) not in out]
        assert sum(of_a) == per_epoch(mixture, sizes, pools)["a"]
        assert not of_a or min(of_a) >= sizes["a"] // pools["a"]
        missed = {(task, i) for task in TASKS for i in range(pools[task])} - set(counts)
        assert order.not_taken(2, mixture, cursor) == sorted(missed)


def test_the_order_without_mixing_is_that_of_earlier_versions():
    """Recorded before an epoch could take another number of examples: shares, examples left out, and sampling."""
    sizes = {"a": 9, "b": 14, "c": 5}
    mixtures = (
        Mixture(tasks=TASKS),
        Mixture(tasks=TASKS, shares=(0.3, 1.0, 0.9), without=frozenset({("b", 3), ("a", 1)})),
        Mixture(tasks=TASKS, weights=(1.0, 2.5, 0.5)),
    )
    digest = hashlib.sha256()
    for mixture in mixtures:
        order, cursor = Order(7, sizes, 6), Cursor()
        for _ in range(40):
            batch, cursor = order.batch(3, mixture, cursor)
            digest.update(repr((batch, cursor.as_json())).encode())
    assert digest.hexdigest() == "9685270d00b1d0fb3a221e4df93a2effbf3bf25ca68deb585d5c4b05f586871e"


@pytest.mark.parametrize("count", [3, 30])
def test_a_look_ahead_draws_from_the_different_examples(count):
    drawn = Order(1, {"a": 50}, 8, {"a": 6}).lookahead(1, 5, "a", count)
    assert len(set(drawn)) == len(drawn) == min(count, 6) and max(drawn) < 6
