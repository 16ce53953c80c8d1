"""What a method said it would do at most is never exceeded, whatever the curves do."""

from __future__ import annotations

import random
from typing import Any

import pytest

from msft.cli.bounds import most_epochs
from msft.config.method_section import resolve
from msft.core.outlook import Bound, Outlook, Standing
from msft.core.search import Search
from msft.core.vocabulary import Brief, Segment
from msft.methods import METHODS, outlook_of
from msft.run.loop import drive
from msft.testing import conformance
from msft.testing.fake import Curve, FakeEngine, brief_of

SIZES = {"a": 40, "b": 80, "c": 200, "d": 120}
PRESETS = [(name, preset) for name, method in METHODS.items() for preset in method.presets]
PEAKS = ((0.3, 0.9, 1.7, 2.5), (5.0, 5.0, 5.0, 5.0), (20.0, 1.0, 20.0, 0.5))


class Watched(FakeEngine):
    """Remembers how many snapshots there were at once."""

    most = 0

    def run(self, segment, number):  # type: ignore[no-untyped-def]
        outcome = super().run(segment, number)
        self.most = max(self.most, len(self.store.held))
        return outcome


def brief_for(engine: FakeEngine, section: dict[str, object]) -> Brief:
    method = resolve(section)
    return brief_of(engine, method.params, horizon=method.horizon, select=method.select, average=method.average)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_no_search_takes_more_than_was_said(name: str, preset: str) -> None:
    for seed in range(12):
        draw = random.Random(seed)
        curves = {task: Curve(peak=draw.choice([1e-9, 0.6, 1.7, 3, 5, 50]), fall=draw.random() / 5) for task in SIZES}
        engine = Watched(curves, SIZES, batch_size=4, items=draw.choice([0, 25]))
        brief = brief_for(engine, {"name": name, "preset": preset})
        outlook = outlook_of(name, brief)
        drive(Search(METHODS[name], brief), engine, engine.store, lambda *_: None)
        assert outlook.bound is not None and outlook.snapshots is not None
        rounding = 0.02 * outlook.bound.instances  # a roll-out ends with a whole step
        assert engine.trained <= outlook.bound.instances + rounding, (name, preset, seed)
        assert engine.most <= outlook.snapshots, (name, preset, seed)


@pytest.mark.parametrize("peaks", PEAKS)
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("msft", {}), ("msft", {"replay": 0.0, "leave_within": 0.0, "ties": "first"}), ("msft", {"max_rollouts": 2}),
        ("sft", {}), ("sro", {}), ("soft_sro", {}), ("one_pass", {}), ("placebo", {}), ("dynamix", {}), ("ies", {}),
        ("wsd", {}), ("coba", {}), ("merge", {}), ("self_distil", {}), ("continual", {}),
        ("continual", {"order": "size_desc"}),
    ],
)  # fmt: skip
def test_the_bound_holds_from_every_roll_out_on(method: str, params: dict[str, Any], peaks: tuple[float, ...]) -> None:
    curves = {task: Curve(peak=peak) for task, peak in zip(SIZES, peaks, strict=True)}
    engine = FakeEngine(curves, dict(zip(SIZES, (20, 24, 28, 32), strict=True)))
    brief = brief_of(engine, METHODS[method].Params(**params))
    _, journal = conformance.run(METHODS[method], brief, engine)
    trained = [(segment, conformance.instances(brief, segment)) for segment, _ in journal]
    for i, (segment, _) in enumerate(trained):
        if segment.trains and segment.start == 0:
            limit = bound(method, brief, segment)
            # Roll-outs end on whole steps.
            slack = brief.batch_size * (1 + len({s.rollout for s, _ in trained[i:]}))
            assert sum(n for _, n in trained[i:]) <= limit.instances + slack
            assert "epochs" in limit.why or "roll-outs" in limit.why


def bound(method: str, brief: Brief, segment: Segment) -> Bound:
    at = Standing(mixture=segment.mixture, rollout=segment.rollout, epoch=segment.epoch)
    limit = outlook_of(method, brief, at).bound
    assert limit is not None
    return limit


def pair(**changes: object) -> Brief:
    """Two sub-datasets of 20 and 24 instances."""
    engine = FakeEngine({"a": Curve(), "b": Curve()}, {"a": 20, "b": 24})
    values = {"params": METHODS["msft"].Params(), **changes}
    params = values.pop("params")
    return brief_of(engine, params, **values)


def test_without_a_limit_on_epochs_only_the_number_of_roll_outs_bounds() -> None:
    endless = pair(horizon=float("inf"))
    assert outlook_of("msft", endless).bound is None
    few = pair(params=METHODS["msft"].Params(max_rollouts=3, budget=2.0), horizon=float("inf"))
    limit = outlook_of("msft", few).bound
    assert limit == Bound(instances=6 * 44, why="3 more roll-outs of 2 epochs")


def test_the_bound_of_a_search_is_the_cost_law() -> None:
    limit = outlook_of("msft", pair(params=METHODS["msft"].Params(budget=4.0, replay=0.1))).bound
    assert limit is not None
    # The limit, a roll-out of both discarded, and one of the larger with a tenth of the smaller.
    assert limit.instances == 10 * 44 + 4 * 44 + 4 * (2 + 24)


def epochs_of(section: dict[str, object], tokens: list[int]) -> float | None:
    method = resolve(section)
    curves = {str(i): Curve() for i in range(len(tokens))}
    brief = brief_for(FakeEngine(curves, dict.fromkeys(curves, 10)), section)
    return most_epochs(method.definition, brief, tokens)


def test_the_estimate_is_the_cost_law_where_sizes_are_equal() -> None:
    """The limit on epochs + C (N + 1) / 2 without replay (design 1.1)."""
    assert epochs_of({"name": "msft", "budget": 4, "replay": 0.0}, [10] * 10) == pytest.approx(10 + 4 * 11 / 2)
    assert epochs_of({"name": "msft", "preset": "release"}, [10] * 10) == 100
    assert epochs_of({"name": "sft", "max_epochs": 3}, [1, 2]) == 3
    assert epochs_of({"name": "sro", "max_epochs": 3}, [1, 2]) == 6


def test_an_unknown_method_is_told_of_as_unknown() -> None:
    assert outlook_of("not_here", pair()) == Outlook()


def test_a_journals_mapping_is_as_good_as_the_params_themselves() -> None:
    brief = pair(params=METHODS["msft"].Params(smooth=3))
    mapping = {"budget": 4.0, "smooth": 3, "of_a_later_version": 1}
    assert outlook_of("msft", pair(params=mapping)) == outlook_of("msft", brief)
