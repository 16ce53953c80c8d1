"""The order of instances: a pure function with the properties of design 3.1."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from msft.core.clock import Clock, per_epoch
from msft.core.vocabulary import Mixture
from msft.data.order import Cursor, Order

SIZES = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1)
SEEDS = st.integers(0, 2**32)
BATCHES = st.integers(1, 17)


def walk(order: Order, rollout: int, mixture: Mixture, steps: int, cursor: Cursor | None = None):
    cursor = cursor or Cursor()
    batches = []
    for _ in range(steps):
        batch, cursor = order.batch(rollout, mixture, cursor)
        batches.append(batch)
    return batches, cursor


def flat(batches):
    return [pair for batch in batches for pair in batch]


@given(SIZES, SEEDS, BATCHES)
def test_each_epoch_is_every_instance_once_in_near_equal_batches(sizes, seed, batch_size):
    mixture = Mixture(tasks=tuple(sizes))
    steps = Clock(sizes, batch_size, 1.0).steps_per_epoch(mixture)
    order, cursor = Order(seed, sizes, batch_size), Cursor()
    everything = sorted((task, index) for task, size in sizes.items() for index in range(size))
    for epoch in range(3):
        batches, cursor = walk(order, 1, mixture, steps, cursor)
        assert sorted(flat(batches)) == everything
        lengths = {len(batch) for batch in batches}
        assert max(lengths) - min(lengths) <= 1 and max(lengths) <= batch_size and min(lengths) >= 1
        assert (cursor.epoch, cursor.began, cursor.step) == (epoch + 1, (epoch + 1) * steps, (epoch + 1) * steps)
        assert cursor.drawn == {task: (epoch + 1) * size for task, size in sizes.items()}


@given(SIZES, SEEDS, BATCHES, st.integers(0, 30), st.sampled_from(["passes", "shares", "weights"]))
def test_restart_from_any_cursor_goes_on_identically(sizes, seed, batch_size, at, kind):
    tasks = tuple(sizes)
    shares = tuple(1.0 if position == 0 else 0.3 for position in range(len(tasks)))
    mixture = Mixture(
        tasks=tasks,
        shares=shares if kind == "shares" else None,
        weights=tuple(float(n + 1) for n in range(len(tasks))) if kind == "weights" else None,
    )
    whole, _ = walk(Order(seed, sizes, batch_size), 2, mixture, at + 10)
    _, cursor = walk(Order(seed, sizes, batch_size), 2, mixture, at)
    cursor = Cursor.from_json(json.loads(json.dumps(cursor.as_json())))
    rest, _ = walk(Order(seed, sizes, batch_size), 2, mixture, 10, cursor)
    assert rest == whole[at:]


@given(SIZES, SEEDS, BATCHES, st.data())
def test_removing_sub_datasets_or_instances_filters_the_same_permutation(sizes, seed, batch_size, data):
    tasks = tuple(sizes)
    kept = data.draw(st.lists(st.sampled_from(tasks), min_size=1, unique=True).map(lambda chosen: set(chosen)))
    first = next(task for task in tasks if task in kept)
    out = frozenset((first, index) for index in range(0, sizes[first] - 1, 2))
    whole = Mixture(tasks=tasks)
    part = Mixture(tasks=tuple(task for task in tasks if task in kept), without=out)
    order, clock = Order(seed, sizes, batch_size), Clock(sizes, batch_size, 1.0)
    everything = flat(walk(order, 3, whole, clock.steps_per_epoch(whole))[0])
    filtered = flat(walk(order, 3, part, clock.steps_per_epoch(part))[0])
    assert filtered == [pair for pair in everything if pair[0] in kept and pair not in out]


@given(st.integers(2, 30), st.floats(0.05, 0.95), SEEDS, BATCHES)
def test_shares_take_every_instance_once_per_cycle(size, share, seed, batch_size):
    sizes = {"full": 7, "part": size}
    mixture = Mixture(tasks=("full", "part"), shares=(1.0, share))
    taken = per_epoch(mixture, sizes)["part"]
    steps = Clock(sizes, batch_size, 1.0).steps_per_epoch(mixture)
    order, cursor = Order(seed, sizes, batch_size), Cursor()
    sliced: list[set[int]] = []
    for _ in range(size // taken):  # whole epochs within the first cycle
        batches, cursor = walk(order, 1, mixture, steps, cursor)
        counts = Counter(flat(batches))
        assert all(counts["full", index] == 1 for index in range(7))
        sliced.append({index for task, index in counts if task == "part"})
        assert len(sliced[-1]) == taken
    assert len(set.union(*sliced)) == taken * len(sliced)


def test_two_cycles_of_a_share_hold_every_instance_twice_in_different_orders():
    order, mixture = Order(5, {"a": 12, "b": 12}, 4), Mixture(tasks=("a", "b"), shares=(1.0, 0.25))
    steps = Clock(order.sizes, 4, 1.0).steps_per_epoch(mixture)
    epochs, cursor = [], Cursor()
    for _ in range(8):
        batches, cursor = walk(order, 1, mixture, steps, cursor)
        epochs.append(frozenset(index for task, index in flat(batches) if task == "b"))
    assert frozenset.union(*epochs[:4]) == frozenset.union(*epochs[4:]) == frozenset(range(12))
    assert epochs[:4] != epochs[4:]


@settings(max_examples=10)
@given(SEEDS)
def test_weights_set_the_frequencies_and_cycle_through_each_sub_dataset(seed):
    sizes, mixture = {"a": 30, "b": 20, "c": 50}, Mixture(tasks=("a", "b", "c"), weights=(1.0, 3.0, 0.0))
    batches, cursor = walk(Order(seed, sizes, 32), 1, mixture, 100)
    counts = Counter(task for task, _ in flat(batches))
    assert "c" not in counts and abs(counts["b"] / counts.total() - 0.75) < 0.05
    assert counts.total() == 25 * 100 and cursor.epoch == 25  # an epoch is the sum of the sizes: 4 steps of 25
    assert cursor.drawn == dict(counts)
    stream = [index for task, index in flat(batches) if task == "b"]
    for start in range(0, len(stream) - 19, 20):
        assert sorted(stream[start : start + 20]) == list(range(20))
    assert stream[:20] != stream[20:40]


def test_seeds_roll_outs_and_epochs_differ():
    mixture, sizes = Mixture(tasks=("a",)), {"a": 50}
    first, cursor = walk(Order(1, sizes, 50), 1, mixture, 1)
    others = [
        walk(Order(2, sizes, 50), 1, mixture, 1)[0],
        walk(Order(1, sizes, 50), 2, mixture, 1)[0],
        walk(Order(1, sizes, 50), 1, mixture, 1, cursor)[0],
    ]
    assert all(first != other for other in others)


@given(st.integers(1, 30), st.integers(1, 40))
def test_lookahead_draws_without_replacement_from_its_own_stream(size, count):
    order = Order(3, {"a": size}, 4)
    drawn = order.lookahead(1, 7, "a", count)
    assert len(set(drawn)) == len(drawn) == min(size, count) and set(drawn) <= set(range(size))
    assert drawn == Order(3, {"a": size}, 9).lookahead(1, 7, "a", count)
    if size > 10 and count > 10:
        assert drawn != order.lookahead(1, 8, "a", count)


def test_the_order_is_pinned():
    """A changed order would break the resumption of every run on disk."""
    mixture = Mixture(tasks=("a", "b"))
    batch, _ = Order(20, {"a": 3, "b": 3}, 6).batch(1, mixture, Cursor())
    assert batch == [("a", 2), ("b", 0), ("b", 1), ("a", 0), ("b", 2), ("a", 1)]
