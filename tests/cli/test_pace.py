from __future__ import annotations

from typing import Any

import pytest
from run_folders import engine_for

from fake_engine import brief_of
from msft.cli.pace import bound
from msft.core.clock import Clock
from msft.core.search import Search
from msft.core.vocabulary import Segment
from msft.methods import METHODS

PEAKS = ((0.3, 0.9, 1.7, 2.5), (5.0, 5.0, 5.0, 5.0), (20.0, 1.0, 20.0, 0.5))


@pytest.mark.parametrize("peaks", PEAKS)
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("msft", {}), ("msft", {"replay": 0.0, "leave_within": 0.0, "ties": "first"}), ("msft", {"max_rollouts": 2}),
        ("sft", {}), ("sro", {}), ("soft_sro", {}), ("one_pass", {}), ("placebo", {}), ("dynamix", {}), ("ies", {}),
    ],
)  # fmt: skip
def test_no_search_trains_more_than_its_bound(method: str, params: dict[str, Any], peaks: tuple[float, ...]) -> None:
    engine = engine_for(("a", "b", "c", "d"), peaks)
    brief = brief_of(engine, METHODS[method].Params(**params))
    search, clock = Search(METHODS[method], brief), Clock.of(brief)
    trained: list[tuple[Segment, float]] = []
    while (segment := search.ask()) is not None:
        epochs = clock.epochs(segment.mixture, segment.stop - segment.start) if segment.trains else 0.0
        trained.append((segment, epochs * clock.instances(segment.mixture)))
        search.tell(engine.run(segment, search.number))
    for i, (segment, _) in enumerate(trained):
        if segment.trains and segment.start == 0:
            limit = bound(brief, method, segment, segment.epoch)
            assert limit is not None
            # Roll-outs end on whole steps.
            slack = brief.batch_size * (1 + len({s.rollout for s, _ in trained[i:]}))
            assert sum(n for _, n in trained[i:]) <= limit.instances + slack
            assert "horizon" in limit.why or "roll-outs" in limit.why


def test_without_a_horizon_only_the_number_of_roll_outs_bounds() -> None:
    engine = engine_for(("a", "b"))
    segment = next(iter(METHODS["msft"].plan(brief_of(engine, METHODS["msft"].Params()))))
    endless = brief_of(engine, METHODS["msft"].Params(), horizon=float("inf"))
    assert bound(endless, "msft", segment, 0.0) is None
    few = brief_of(engine, METHODS["msft"].Params(max_rollouts=3, budget=2.0), horizon=float("inf"))
    limit = bound(few, "msft", segment, 0.0)
    assert limit is not None
    assert limit.why == "3 more roll-outs of 2 epochs"
    assert limit.instances == 6 * Clock.of(few).instances(segment.mixture)


def test_the_bound_of_a_search_is_the_cost_law() -> None:
    engine = engine_for(("a", "b"))  # 20 and 24 instances
    brief = brief_of(engine, METHODS["msft"].Params(budget=4.0, replay=0.1))
    segment = next(iter(METHODS["msft"].plan(brief)))
    limit = bound(brief, "msft", segment, 0.0)
    assert limit is not None
    # The horizon, a roll-out of both given up, and one of the larger with a tenth of the smaller.
    assert limit.instances == 10 * 44 + 4 * 44 + 4 * (2 + 24)
