"""The bounds of `msft check` hold whatever the curves do, and its warnings come where they are due."""

from __future__ import annotations

import math
import random

import pytest

from fake_engine import Curve, FakeEngine, brief_of
from msft.cli.estimate import most_epochs, most_snapshots
from msft.config.method_section import resolve
from msft.core.clock import Clock
from msft.core.search import Search
from msft.core.vocabulary import Mixture
from msft.methods import METHODS
from msft.run.loop import drive

SIZES = {"a": 40, "b": 80, "c": 200, "d": 120}


class Watched(FakeEngine):
    """Remembers how many snapshots there were at once."""

    most = 0

    def run(self, segment, number):  # type: ignore[no-untyped-def]
        outcome = super().run(segment, number)
        self.most = max(self.most, len(self.store.held))
        return outcome


def searched(section: dict[str, object], seed: int) -> tuple[Watched, float, int]:
    """An engine after a whole search on random curves, the estimate's bound on epochs and that on snapshots."""
    method = resolve(section)
    draw = random.Random(seed)
    curves = {task: Curve(peak=draw.choice([1e-9, 0.6, 1.7, 3, 5, 50]), fall=draw.random() / 5) for task in SIZES}
    engine = Watched(curves, SIZES, batch_size=4, eval_every=method.eval_every, items=draw.choice([0, 25]))
    horizon = math.inf if method.horizon is None else method.horizon
    brief = brief_of(engine, method.params, horizon=horizon, select=method.select, average=method.average)
    drive(Search(METHODS[method.name], brief), engine, engine.store, lambda *_: None)
    clock = Clock(SIZES, 4, method.eval_every)
    mixture = Mixture(tasks=tuple(SIZES))
    return engine, most_epochs(method, list(SIZES.values())), most_snapshots(method, clock, mixture)


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name, method in METHODS.items() for preset in method.presets]
)
def test_no_search_takes_more_than_was_said(name: str, preset: str) -> None:
    for seed in range(12):
        engine, epochs, snapshots = searched({"name": name, "preset": preset}, seed)
        rounding = 0.02 * epochs  # a roll-out ends with a whole step
        assert engine.trained / sum(SIZES.values()) <= epochs + rounding, (name, preset, seed)
        assert engine.most <= snapshots, (name, preset, seed)


def test_the_bound_is_the_cost_law_where_sizes_are_equal() -> None:
    """DESIGN 1.1: horizon + C (N + 1) / 2 without replay."""
    method = resolve({"name": "msft", "budget": 4, "replay": 0.0})
    assert most_epochs(method, [10] * 10) == pytest.approx(10 + 4 * 11 / 2)
    assert most_epochs(resolve({"name": "msft", "preset": "release"}), [10] * 10) == 100
    assert most_epochs(resolve({"name": "sft", "horizon": 3}), [1, 2]) == 3
    assert most_epochs(resolve({"name": "sro", "horizon": 3}), [1, 2]) == 6
