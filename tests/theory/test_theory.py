"""The statements of docs/theory.md, each on the real search and the fake engine."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msft.core.curves import may_be_peaks, peak, smoothed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Segment, Task
from msft.methods import METHODS
from msft.methods.msft import Params
from msft.run.loop import drive
from msft.testing.fake import FakeEngine, brief_of

TASKS = st.integers(1, 6)
PARAMS = st.builds(
    Params,
    budget=st.sampled_from([0.5, 1.0, 3.0]),
    smooth=st.sampled_from([1, 3, 5]),
    flat=st.sampled_from(["stays", "leaves"]),
    leave_within=st.sampled_from([0.0, 1.0]),
    ties=st.sampled_from(["all", "first"]),
    roll_back=st.sampled_from(["lower_median", "earliest"]),
    replay=st.sampled_from([0.0, 0.1, 0.5]),
)


@dataclass(frozen=True)
class Anything:
    """A score that is an arbitrary function of the exposure: nothing is assumed of learning curves."""

    salt: int
    levels: int

    def __call__(self, exposure: float) -> float:
        key = f"{self.salt} {exposure:.6f}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:4]) % self.levels / self.levels


@dataclass(frozen=True)
class Table:
    """A score by tick: `values[k]` after k quarters of an epoch; the last one from there on."""

    values: Sequence[float]

    def __call__(self, exposure: float) -> float:
        return self.values[min(round(4 * exposure), len(self.values) - 1)]


def anything(tasks: int, salt: int, levels: int, size: int = 9) -> FakeEngine:
    curves = {chr(97 + i): Anything(salt + i, levels) for i in range(tasks)}
    return FakeEngine(curves, {task: size + 3 * i for i, task in enumerate(curves)})  # type: ignore[arg-type]


def journal_of(engine: FakeEngine, params: Params, horizon: float = 6.0) -> list[Segment]:
    journal: list[Segment] = []
    search = Search(METHODS["msft"], brief_of(engine, params, horizon=horizon))
    drive(search, engine, engine.store, lambda _, segment, outcome: journal.append(segment))
    return journal


def stages(journal: Sequence[Segment]) -> list[list[Segment]]:
    """The trained segments between one decision and the next."""
    return [list(part) for trains, part in itertools.groupby(journal, lambda segment: segment.trains) if trains]


# 1. Termination


@settings(max_examples=120, deadline=None)
@given(tasks=TASKS, salt=st.integers(0, 10**6), levels=st.integers(1, 9), params=PARAMS, horizon=st.floats(0.1, 9))
def test_a_search_ends_after_at_most_as_many_looks_as_the_theorem_says(
    tasks: int, salt: int, levels: int, params: Params, horizon: float
) -> None:
    engine = anything(tasks, salt, levels)
    journal = journal_of(engine, params, horizon)
    per_stage = math.ceil(params.budget / engine.eval_every) + 1
    stages = tasks + math.ceil(horizon / params.budget)
    assert sum(not segment.trains for segment in journal) <= tasks
    assert sum(segment.trains for segment in journal) <= stages * per_stage


@settings(max_examples=120, deadline=None)
@given(tasks=TASKS, salt=st.integers(0, 10**6), levels=st.integers(1, 9), params=PARAMS)
def test_the_position_never_falls_below_where_the_roll_out_began(
    tasks: int, salt: int, levels: int, params: Params
) -> None:
    journal = journal_of(anything(tasks, salt, levels), params)
    starts = [stage[0].epoch for stage in stages(journal)]
    assert starts == sorted(starts)


# 2. The cost law


@settings(max_examples=150, deadline=None)
@given(tasks=TASKS, salt=st.integers(0, 10**6), levels=st.integers(1, 9), params=PARAMS, horizon=st.floats(0.1, 9))
def test_training_costs_at_most_the_horizon_and_what_is_rolled_back(
    tasks: int, salt: int, levels: int, params: Params, horizon: float
) -> None:
    engine = anything(tasks, salt, levels)
    journal = journal_of(engine, params, horizon)
    whole = sum(engine.sizes.values())
    turns = [before for before, after in itertools.pairwise(journal) if not after.trains]
    bound = horizon * whole + sum(params.budget * engine.clock.instances(before.mixture) for before in turns)
    stages = tasks + math.ceil(horizon / params.budget)
    assert engine.trained <= bound + stages * engine.batch_size  # each stage ends on a whole step


@pytest.mark.parametrize(("tasks", "budget"), [(1, 1.0), (3, 1.0), (4, 2.0), (7, 1.0)])
def test_with_equal_sizes_and_one_exclusion_each_the_bound_is_reached(tasks: int, budget: float) -> None:
    """Everything peaks at tick 0 and stays there: each roll-out is thrown away, C (N + 1) / 2 epochs in all."""
    curves = {chr(97 + i): Table([1.0, 0.5]) for i in range(tasks)}
    engine = FakeEngine(curves, dict.fromkeys(curves, 8))  # type: ignore[arg-type]
    journal_of(engine, Params(budget=budget, smooth=1, leave_within=0, ties="first", replay=0), horizon=5.0)
    assert engine.trained / sum(engine.sizes.values()) == pytest.approx(budget * (tasks + 1) / 2)


# 3. Retention


@settings(max_examples=150, deadline=None)
@given(tasks=TASKS, salt=st.integers(0, 10**6), levels=st.integers(1, 9), params=PARAMS)
def test_no_more_snapshots_are_held_than_the_bound_says(tasks: int, salt: int, levels: int, params: Params) -> None:
    journal = journal_of(anything(tasks, salt, levels), params)
    for stage in stages(journal):
        for ticks, segment in enumerate(stage):
            held = ({segment.parent} | segment.keep) - {ROOT}
            assert len(held) <= min(len(segment.mixture.active), ticks + 1) + params.smooth // 2 + 2


@settings(max_examples=300, deadline=None)
@given(
    curves=st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=1, max_size=4),
    seen=st.integers(1, 8),
    window=st.sampled_from([1, 3, 5]),
)
def test_what_is_let_go_can_never_be_a_peak(curves: list[list[int]], seen: int, window: int) -> None:
    """The rule of retention drops a tick only if no continuation makes it the smoothed peak of any curve."""
    kept = may_be_peaks({str(i): curve[:seen] for i, curve in enumerate(curves)}, window)
    for curve in curves:
        at = peak([float(score) for score in curve], window).tick
        assert at in kept or at >= seen


# 4. When the decisions are those of noiseless scores


def decisions(curves: Mapping[Task, Sequence[float]], params: Params) -> list[tuple[tuple[Task, ...], int, float]]:
    """What stays active after each decision, with the snapshot and the position that were returned to."""
    engine = FakeEngine({t: Table(values) for t, values in curves.items()}, dict.fromkeys(curves, 16))  # type: ignore[arg-type]
    journal = journal_of(engine, params, horizon=5.0)
    return [(s.mixture.active, s.parent, s.epoch) for s in journal if not s.trains]


@settings(max_examples=150, deadline=None)
@given(
    levels=st.lists(st.permutations(range(21)), min_size=1, max_size=4),
    noise=st.integers(0, 2**32),
    params=st.builds(Params, budget=st.sampled_from([1.0, 2.0]), smooth=st.just(1),
                     flat=st.sampled_from(["stays", "leaves"]), leave_within=st.sampled_from([0.0, 0.5]),
                     roll_back=st.sampled_from(["lower_median", "earliest"]), replay=st.just(0.0)),
)  # fmt: skip
def test_noise_below_half_the_margin_changes_no_decision(levels: list[list[int]], noise: int, params: Params) -> None:
    """Distinct levels of a curve lie 1/21 apart; errors of less than half of that leave every comparison as it is."""
    dice = random.Random(noise)
    true = {chr(97 + i): [level / 21 for level in curve] for i, curve in enumerate(levels)}
    seen = {task: [score + dice.uniform(-0.499, 0.499) / 21 for score in curve] for task, curve in true.items()}
    assert decisions(seen, params) == decisions(true, params)


def test_noise_above_half_the_margin_can_change_a_decision() -> None:
    """The condition is sharp: the same curves, errors a little larger."""
    true = {"a": [0.0, 0.3, 0.4, 0.2, 0.1] + [0.0] * 20}
    seen = {"a": [0.0, 0.351, 0.349, 0.2, 0.1] + [0.0] * 20}
    params = Params(budget=1.0, smooth=1, replay=0)
    assert decisions(true, params) != decisions(seen, params)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=15), st.floats(0, 0.3), st.integers(0, 2**32))
def test_smoothing_lets_no_more_noise_through(curve: list[float], size: float, salt: int) -> None:
    dice = random.Random(salt)
    noisy = [score + dice.uniform(-size, size) for score in curve]
    for window in (1, 3, 5):
        for a, b in zip(smoothed(curve, window), smoothed(noisy, window), strict=True):
            assert abs(a - b) <= size + 1e-12


def wrong_bound(curve: Sequence[float], items: int) -> float:
    """Hoeffding: the chance that the argmax of a curve scored on so many items is not its true peak."""
    best = max(curve)
    return sum(math.exp(-items * (best - score) ** 2 / 2) for score in curve if score != best)


@pytest.mark.parametrize("shared", [0.0, 0.7], ids=["fresh_items", "items_alike_between_ticks"])
@pytest.mark.parametrize("items", [60, 150, 300, 1000])
def test_wrong_peaks_are_rarer_than_the_bound_and_fall_with_the_items(items: int, shared: float) -> None:
    """Each item is right or wrong at each tick; `shared`: how much of its luck stays from tick to tick."""
    curve, draws = [0.3, 0.5, 0.7, 0.55], 400
    dice = random.Random(items)
    wrong = 0
    for _ in range(draws):
        luck = [dice.random() for _ in range(items)]
        scores = []
        for score in curve:
            right = sum((u if dice.random() < shared else dice.random()) < score for u in luck)
            scores.append(right / items)
        wrong += peak(scores).tick != 2
    error = 3 * math.sqrt(max(wrong, 1)) / draws
    assert wrong / draws <= min(1.0, wrong_bound(curve, items)) + error
    if items >= 300:
        assert wrong / draws < 0.02


@pytest.mark.parametrize(("tasks", "ticks"), [(1, 4), (5, 8), (10, 16)])
def test_flat_curves_peak_at_the_start_as_often_as_the_formula_says(tasks: int, ticks: int) -> None:
    """N flat curves over K exchangeable ticks: one of them peaks at tick 0 with probability 1 - (1 - 1/K)^N."""
    dice, draws = random.Random(ticks), 4000
    hits = sum(any(peak([dice.random() for _ in range(ticks)]).tick == 0 for _ in range(tasks)) for _ in range(draws))
    expected = 1 - (1 - 1 / ticks) ** tasks
    assert abs(hits / draws - expected) < 4 * math.sqrt(expected * (1 - expected) / draws) + 1e-3


# 5. When the beginning of a roll-out settles its decision

CEILING = 2
PLAIN = Params(budget=1.0, smooth=1, flat="leaves", leave_within=0.0, ties="all", roll_back="earliest", replay=0.0)


def first_decision(curves: Mapping[Task, Sequence[int]]) -> tuple[tuple[Task, ...], float] | None:
    """Who leaves after the first roll-out of four ticks, and the position returned to; None: nobody."""
    engine = FakeEngine({t: Table(values) for t, values in curves.items()}, dict.fromkeys(curves, 16))  # type: ignore[arg-type]
    search = Search(METHODS["msft"], brief_of(engine, PLAIN, horizon=1.0))
    while (segment := search.ask()) is not None:
        if not segment.trains:
            return tuple(t for t in curves if t not in segment.mixture.active), segment.epoch
        search.tell(engine.run(segment, search.number))
    return None


def settled(prefix: Mapping[Task, Sequence[int]]) -> bool:
    """The criterion of docs/theory.md: a curve is at the ceiling, and no other one has an open peak as early."""
    at = {task: curve.index(max(curve)) for task, curve in prefix.items()}
    closed = {task for task, curve in prefix.items() if max(curve) == CEILING}
    if not closed:
        return False
    first = min(at[task] for task in closed)
    return all(task in closed or at[task] > first for task in prefix)


@settings(max_examples=80, deadline=None)
@given(prefix=st.lists(st.lists(st.integers(0, CEILING), min_size=3, max_size=3), min_size=1, max_size=2))
def test_a_beginning_settles_the_decision_exactly_at_the_ceiling(prefix: list[list[int]]) -> None:
    """Three of five scores are seen; the real search decides on every continuation by the worst and the best score."""
    seen = {chr(97 + i): curve for i, curve in enumerate(prefix)}
    endings = list(itertools.product(itertools.product((0, CEILING), repeat=2), repeat=len(seen)))
    found = {
        first_decision({t: [*curve, *ending] for (t, curve), ending in zip(seen.items(), ends, strict=True)})
        for ends in endings
    }
    assert (len(found) == 1) == settled(seen)
