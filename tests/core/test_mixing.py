"""How many examples an epoch takes of each sub-dataset: `data.mixing` and `repeat`."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msft.core.clock import Clock, exact, per_epoch
from msft.core.mixing import apportioned, taken
from msft.core.vocabulary import Brief, Mixture, Outcome

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=8)
TEMPERATURES = st.sampled_from([1.0, 1.5, 2.0, 5.0, 1e6])


@given(SIZES, st.data())
def test_by_size_an_epoch_takes_each_example_as_often_as_it_is_repeated(sizes: list[int], data: st.DataObject) -> None:
    repeats = data.draw(st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.5, 3.0]), min_size=len(sizes), max_size=len(sizes)))
    assert taken(sizes, [1.0] * len(sizes), "size") == tuple(sizes)
    found = taken(sizes, repeats, "size")
    for size, repeat, count in zip(sizes, repeats, found, strict=True):
        assert count >= 1 and (abs(count - size * exact(repeat)) <= Fraction(1, 2) or count == 1)


@pytest.mark.parametrize(
    ("sizes", "repeats", "mixing", "expected"),
    [
        ((10, 30, 20), (3.0, 1.0, 0.1), "size", (30, 30, 2)),
        ((10, 3), (0.001, 0.5), "size", (1, 2)),  # at least one, and 1.5 is rounded to the even number
        ((10, 20, 60), (1.0, 1.0, 1.0), "equal", (30, 30, 30)),
        ((10, 20, 60), (2.0, 2.0, 2.0), "equal", (60, 60, 60)),
        ((1, 4, 16), (1.0, 1.0, 1.0), 2.0, (3, 6, 12)),  # square roots 1, 2, 4 of 21
        ((4, 4, 16), (0.25, 1.0, 1.0), 2.0, (3, 6, 12)),  # the same products
        ((100, 100, 1), (1.0, 1.0, 1.0), 1.0, (100, 100, 1)),
        ((10, 10, 10), (0.5, 0.5, 0.4), 1e9, (5, 5, 4)),  # of 14, the first gain
        ((7, 1000), (1.0, 1.0), 1.0, (7, 1000)),
        ((1, 2, 3), (0.1, 0.1, 0.1), 2.0, (1, 1, 1)),  # of less than one each
    ],
)
def test_the_arithmetic(
    sizes: tuple[int, ...], repeats: tuple[float, ...], mixing: float, expected: tuple[int, ...]
) -> None:
    assert taken(sizes, repeats, mixing) == expected


@given(SIZES, TEMPERATURES)
def test_a_temperature_keeps_the_total_and_the_order_of_sizes(sizes: list[int], temperature: float) -> None:
    found = taken(sizes, [1.0] * len(sizes), temperature)
    assert sum(found) == sum(sizes) and min(found) >= 1
    by_size = sorted(zip(sizes, found, strict=True))
    assert all(low <= high + 1 for (_, low), (_, high) in pairwise(by_size))
    if temperature == 1.0:
        assert found == tuple(sizes)
    if temperature > 1000:
        mean = taken(sizes, [1.0] * len(sizes), "equal")[0]
        assert all(abs(count - mean) <= 1 for count in found)


@given(st.lists(st.fractions(Fraction(1, 1000), 1000), min_size=1, max_size=9), st.integers(0, 300))
def test_parts_are_whole_and_within_one_of_their_proportion(odds: list[Fraction], more: int) -> None:
    total = len(odds) + more
    parts = apportioned(total, odds)
    assert sum(parts) == total and min(parts) >= 1
    larger = [i for i, part in enumerate(parts) if part > 1]
    room = sum(parts[i] for i in larger)
    for i in larger:  # those at 1 may have been lifted there; the others share what is left
        assert parts[i] - 1 < Fraction(room + len(parts), 1) * odds[i] / sum(odds[j] for j in larger) + 1


def test_what_is_taken_falls_with_what_is_left_out() -> None:
    sizes, pools = {"often": 25, "rarely": 4, "once": 6}, {"often": 10, "rarely": 12, "once": 6}
    out = frozenset({("often", 1), ("often", 2), ("once", 0), *(("rarely", i) for i in range(12))})
    mixture = Mixture(tasks=tuple(sizes), without=out)
    assert per_epoch(mixture, sizes, pools) == {"often": 20, "rarely": 0, "once": 5}
    assert per_epoch(Mixture(tasks=("often", "rarely"), shares=(0.1, 1.0)), sizes, pools) == {"often": 3, "rarely": 4}


def test_the_clock_of_a_brief_counts_what_an_epoch_takes() -> None:
    brief = Brief(
        tasks=("a", "b"), sizes=(20, 3), pools=(5, 12), validation_sizes=(1, 1), batch_size=4, seed=0,
        base=Outcome(snapshot=0, scores={}, reports={}), horizon=3.0, eval_every=0.5,
    )  # fmt: skip
    clock = Clock.of(brief)
    assert (brief.distinct, clock.steps_per_epoch(Mixture(tasks=("a", "b")))) == ((5, 12), 6)
    assert clock.instances(Mixture(tasks=("a",), without=frozenset({("a", 0)}))) == 16
