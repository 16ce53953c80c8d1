"""The fixed sizes of micro-batches, and how they are filled up."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from msft.data.examples import Example
from msft.forward.filled import Filled, arrays
from msft.forward.planner import deal
from msft.forward.shapes import MOST, TOKENS, added, choose
from msft.forward.token_rows import Row, row

CPU = torch.device("cpu")


def example(tokens: int, targets: int) -> Example:
    trained = np.zeros(tokens + 1, np.bool_)
    trained[tokens - np.arange(targets)] = True
    return Example(ids=np.arange(1, tokens + 2, dtype=np.int32), trained=trained)


def sizes(rows: list[Row]) -> NDArray[np.int64]:
    return np.array([(len(one), len(one.targets)) for one in rows], np.int64)


ROWS = st.lists(st.integers(1, 90).flatmap(lambda n: st.builds(lambda t: row([example(n, t)]), st.integers(1, n))),
                min_size=1, max_size=40)  # fmt: skip


@settings(max_examples=60)
@given(ROWS, st.integers(1, 12), st.integers(90, 700), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_micro_batch_fits_a_size_and_comes_back_whole(rows, batch_size, budget, world, random):
    shapes = choose([sizes(rows)], batch_size, budget, world=world)
    assert len(shapes) <= MOST and shapes == sorted(shapes, key=lambda shape: shape.tokens)
    assert shapes == choose([sizes(rows)], batch_size, budget, world=world), "a pure function"
    assert all(shape.longest == max(map(len, rows)) for shape in shapes)
    batch = [random.choice(rows) for _ in range(batch_size)]
    hands = deal([len(one) for one in batch], shapes[-1].tokens, world, flat=True)
    for places in filter(None, itertools.chain.from_iterable(hands)):
        part = [batch[place] for place in places]
        shape = next((shape for shape in shapes if shape.holds(part)), None)
        if shape is None:  # more targets than any drawn step had: computed without a fixed size
            assert sum(len(one.targets) for one in part) > shapes[-1].targets
            continue
        check(part, shape)


def check(part, shape):
    filled = Filled(shape, CPU)
    weights = np.arange(1.0, 1 + sum(len(one.targets) for one in part))
    filled.take(arrays(part, shape, weights))
    batch, tokens, targets = filled.batch, sum(map(len, part)), len(weights)
    ends = batch.lengths.ends.numpy()
    assert ends[0] == 0 and ends[-1] == shape.tokens and len(ends) == shape.rows + 1
    lengths = np.diff(ends)
    assert lengths.min() >= 0 and lengths.max() <= batch.lengths.longest, "attention writes every output"
    assert lengths[: len(part)].tolist() == [len(one) for one in part]
    assert np.array_equal(batch.ids[0, :tokens], np.concatenate([one.ids for one in part]))
    assert np.array_equal(batch.positions[0, :tokens], np.concatenate([one.positions for one in part]))
    assert np.array_equal(batch.targets[:targets], np.concatenate([one.targets for one in part]))
    before = np.concatenate([one.before + start for one, start in zip(part, ends, strict=False)])
    assert np.array_equal(batch.read[:targets], before)
    assert np.array_equal(filled.weights[:targets], weights) and not filled.weights[targets:].any()
    filling = batch.positions[0, tokens:].numpy()
    at = ends[len(part) :]
    expected = np.concatenate([np.arange(n) for n in np.diff(at)]) if len(at) > 1 else np.zeros(0)
    assert np.array_equal(filling, expected), "positions count from 0 in what fills up too"


def test_filling_up_adds_little():
    random = np.random.default_rng(0)
    lengths = [np.stack([n := random.integers(20, 20 + 60 * task, 400), n // 7 + 1], 1) for task in range(1, 6)]
    shapes = choose(lengths, 64, 1 << 16)
    assert 0 <= added(shapes, lengths, 64, 1 << 16) < 0.1
    assert added(shapes[-1:], lengths, 64, 1 << 16) > 2 * added(shapes, lengths, 64, 1 << 16)
    assert all(shape.tokens % TOKENS == 0 for shape in shapes)


def test_each_process_computes_its_part_of_a_step():
    """Not a whole one: then eight GPUs would be as fast as one."""
    random = np.random.default_rng(0)
    lengths = [np.stack([n := random.integers(20, 120, 400), n // 7 + 1], 1)]
    for world in (1, 2, 8):
        shapes = choose(lengths, 64, 1 << 16, world=world)
        assert 64 * 70 / world < shapes[-1].tokens < 1.5 * 64 * 70 / world
        assert shapes[-1].rows == 64 // world + -(-shapes[-1].tokens // shapes[-1].longest)
        assert added(shapes, lengths, 64, 1 << 16, world) < 0.15


def test_a_budget_is_kept_and_the_longest_row_fits():
    lengths = [np.array([[300, 3], [20, 2], [25, 9]])]
    shapes = choose(lengths, 16, 256)
    assert shapes[-1].tokens == 384 and shapes[-1].longest == 300
    assert all(shape.tokens <= 256 or shape.tokens == 384 for shape in shapes)
