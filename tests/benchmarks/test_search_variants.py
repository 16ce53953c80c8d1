"""The variants of mSFT's search do what their names say. No model is trained."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import search_variants
from varied_search import METHOD, VARIANTS, Decision, Params

from msft.core.averages import Averaging
from msft.core.rollout import Point
from msft.core.vocabulary import Outcome
from msft.methods import METHODS
from msft.testing import conformance
from msft.testing.conformance import Journal
from msft.testing.fake import Curve, FakeEngine, brief_of

CURVES = {"early": Curve(peak=1.0), "late": Curve(peak=3.0), "never": Curve(peak=50.0)}
SIZES = dict.fromkeys(CURVES, 40)


def searched(variant: str, curves: dict[str, Curve] = CURVES, horizon: float = 6.0) -> tuple[int, Journal]:
    """A search of four epochs a roll-out, evaluated every quarter: its answer and journal."""
    engine = FakeEngine(curves, SIZES)
    brief = brief_of(engine, Params(**{"smooth": 1, "budget": 4.0, **VARIANTS[variant]}), horizon=horizon)
    return conformance.run(METHOD, brief, engine)


def turns(journal: Journal) -> list[tuple[float, dict[str, float]]]:
    """Each decision: the epoch, and the share of each sub-dataset that the mixture holds from there on."""
    found = []
    for segment, _ in journal:
        if not segment.trains and not segment.blend:
            mixture = segment.mixture
            shares = {task: mixture.share(task) for task in mixture.tasks}
            found.append((segment.epoch, shares))
    return found


@pytest.mark.parametrize("items", conformance.NOISE)
def test_without_a_change_the_search_is_msfts(items: int) -> None:
    case = next(c for c in conformance.cases(METHOD) if str(c) == f"msft-apart-plain-{items}")
    engine, other = case.engine(), case.engine()
    theirs = METHODS["msft"]
    ours = conformance.run(METHOD, case.brief(METHOD, engine), engine)
    assert ours == conformance.run(theirs, conformance.brief_for(theirs, other), other)


@pytest.mark.parametrize("variant", ["earlier", "readmit", "tolerance1", "soup"])
def test_each_variant_with_a_plan_of_its_own_is_a_method(variant: str) -> None:
    case = next(c for c in conformance.cases(METHOD) if str(c) == f"{variant}-apart-plain-0")
    conformance.check(METHOD, case)


@pytest.mark.parametrize(("variant", "share"), [("floor0", None), ("msft", 0.1), ("floor25", 0.25)])
def test_a_floor_keeps_drawing_the_excluded_at_its_share(variant: str, share: float | None) -> None:
    _, journal = searched(variant)
    assert turns(journal)[0] == (1.0, ({} if share is None else {"early": share}) | {"late": 1.0, "never": 1.0})
    after = next(s for s, _ in journal if s.trains and s.rollout == 2)
    assert "early" not in after.mixture.active
    assert ("early" in after.mixture.tasks) == (share is not None)


def test_earlier_leaves_before_the_peak_by_the_mean_age() -> None:
    """The averaged curve peaks at epoch 2, where the mean is 25 steps old: 1.27 is the tick nearest to 1.16."""
    curves = {"early": Curve(peak=2.0), "late": Curve(peak=50.0), "never": Curve(peak=50.0)}
    assert Averaging(30.0).age(60) / 30 == pytest.approx(0.84, abs=0.01)
    (exact, _), *_ = turns(searched("msft", curves)[1])
    (earlier, mixture), *_ = turns(searched("earlier", curves)[1])
    assert (exact, earlier) == pytest.approx((2.0, 38 / 30))
    assert mixture == {"early": 0.1, "late": 1.0, "never": 1.0}


def test_what_has_fallen_since_it_left_comes_back_once() -> None:
    """The tenth of `early` that is still drawn pushes it past its peak."""
    plain, back = (
        [mixture["early"] for _, mixture in turns(searched(variant, horizon=20.0)[1])]
        for variant in ("msft", "readmit")
    )
    assert plain == [0.1, 0.1]
    assert back[:4] == [0.1, 0.1, 1.0, 0.1], "it comes back after `late` left, and leaves again"
    assert set(back[4:]) == {0.1}, "it comes back twice"


def test_a_fall_within_the_error_of_its_items_excludes_nothing() -> None:
    curves = {"early": Curve(peak=1.0, fall=0.01), "late": Curve(peak=50.0), "never": Curve(peak=50.0)}
    engine = FakeEngine(curves, SIZES, items=100)

    def left(sure: float, fall: float) -> set[str]:
        changed = replace(engine, curves=curves | {"early": Curve(peak=1.0, fall=fall)})
        brief = brief_of(changed, Params(smooth=1, budget=4.0, sure=sure), horizon=4.0)
        mixtures = [segment.mixture for segment, _ in conformance.run(METHOD, brief, changed)[1]]
        return {task for mixture in mixtures for task in mixture.replayed}

    assert "early" in left(0.0, 0.01) and "early" not in left(4.0, 0.01)
    assert "early" in left(4.0, 0.2)
    # Without items nothing is paired, and each fall counts.
    assert turns(searched("tolerance2")[1]) == turns(searched("msft")[1]) != []


def test_the_soup_holds_each_sub_datasets_own_peak() -> None:
    _, journal = searched("soup")
    blends = [segment for segment, _ in journal if segment.blend]
    assert len(blends) == 1
    left = [segment.parent for segment, _ in journal if not segment.trains and not segment.blend]
    last = [outcome.snapshot for segment, outcome in journal if segment.trains][-1]
    assert dict(blends[0].blend) == {snapshot: pytest.approx(1 / 3) for snapshot in (*left, last)}
    assert len(left) == 2


@pytest.mark.parametrize("bounds", search_variants.BOUNDS.values(), ids=list(search_variants.BOUNDS))
def test_the_looks_err_in_a_twentieth_of_the_cases_in_all(bounds: list[float]) -> None:
    """The difference over the first k of five parts, in standard errors: a random walk divided by the root of k."""
    looks = np.arange(1, search_variants.LOOKS + 1)
    walk = np.random.default_rng(3).normal(size=(200_000, len(looks))).cumsum(axis=1) / np.sqrt(looks)
    assert np.mean((np.abs(walk) >= bounds).any(axis=1)) == pytest.approx(0.05, abs=0.002)


def outcomes(values: list[list[float]]) -> list[Outcome]:
    """Of one sub-dataset: [ticks][items]."""
    return [
        Outcome(
            snapshot=i,
            scores={"a": sum(row) / len(row)},
            reports={"a": sum(row) / len(row)},
            items={"a": tuple(row)},
            metrics={"a": tuple(row)},
        )
        for i, row in enumerate(values)
    ]


def decision(values: list[list[float]]) -> Decision:
    points = [
        Point(snapshot=o.snapshot, epoch=float(i), scores=o.scores, outcome=o) for i, o in enumerate(outcomes(values))
    ]
    return Decision(points=points, active=("a",), here=points[-1])


def test_a_look_decides_early_only_where_the_difference_is_sure() -> None:
    bounds = search_variants.BOUNDS["O'Brien-Fleming"]
    wobble = [0.02 * (i % 5) for i in range(100)]
    clear = [[0.1] * 100, [0.5 + w for w in wobble], [0.3 - w for w in wobble]]
    look = search_variants.looked(decision(clear), "a", 1, bounds)
    assert look == (0.2, True, True, False, 2, 1)
    noise = [[0.1] * 100, [float(i % 2) for i in range(100)], [float(i % 3 == 0) for i in range(100)]]
    assert search_variants.looked(decision(noise), "a", 1, bounds).items > 0.2
    same = [[0.1] * 100, [0.5] * 100, [0.5] * 100]
    assert search_variants.looked(decision(same), "a", 1, bounds).items == 1.0


def test_the_recorded_outcomes_give_the_decisions_back() -> None:
    engine = FakeEngine(CURVES, SIZES)
    brief = brief_of(engine, Params(smooth=1), horizon=6.0)
    _, journal = conformance.run(METHODS["msft"], replace(brief), engine)
    found = search_variants.decisions_of(brief, [outcome for _, outcome in journal])
    assert [each.out for each in found if each.out] == [("early",), ("late",)]
    assert [each.here.epoch for each in found if each.out] == [epoch for epoch, _ in turns(journal)]


def test_the_job_of_a_variant_differs_from_msfts_in_its_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, search_variants.VARIED, METHOD)
    made = {name: search_variants.variant_of("uneven", name).config for name in search_variants.NAMES}
    assert all(config.training == made["msft"].training for config in made.values())
    plain = made["msft"].method.params
    for name, changes in VARIANTS.items():
        if name != "msft":
            own = made[name].method.params
            assert {key: getattr(own, key) for key in changes} == changes
            same = plain.__dataclass_fields__.keys() - changes.keys()
            assert all(getattr(own, key) == getattr(plain, key) for key in same)
            assert made[name].method.max_epochs == made["msft"].method.max_epochs
