"""auto: SFT unless a second run can pay; what decides, what it hands over, and what it costs at most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot
from msft.methods import METHODS, auto, explanation_of
from msft.testing.conformance import Journal, run
from msft.testing.fake import Curve, FakeEngine, brief_of

APART = {"early": Curve(peak=1, fall=0.12), "late": Curve(peak=7), "later": Curve(peak=8), "middle": Curve(peak=4)}
TOGETHER = {task: Curve(peak=8) for task in APART}
FALLING = {task: Curve(peak=1, fall=0.1) for task in APART}


def search(
    curves: dict[str, Curve], *, items: int = 1000, method: str = "auto", **changes: Any
) -> tuple[Snapshot, Journal, Brief, FakeEngine]:
    engine = FakeEngine(curves, dict.fromkeys(curves, 16), items=items, eval_every=0.5)
    brief = brief_of(engine, METHODS[method].Params(**changes), horizon=8.0)
    answer, journal = run(METHODS[method], brief, engine)
    return answer, journal, brief, engine


def cost(journal: Journal) -> tuple[int, int]:
    return sum(o.tokens.train for _, o in journal), sum(o.tokens.eval for _, o in journal)


def bare(journal: Journal) -> list[tuple[Segment, Outcome]]:
    return [(replace(segment, keep=frozenset()), outcome) for segment, outcome in journal]


@pytest.mark.parametrize(("second", "does"), [
    ("teach", "A second run taught each sub-dataset by the model at its own peak."),
    ("exclude", "A second run excluded each sub-dataset at its own peak."),
])  # fmt: skip
def test_there_is_a_second_run_where_peaks_are_apart_and_the_better_model_is_handed_over(
    second: str, does: str
) -> None:
    answer, journal, brief, engine = search(APART, second=second)
    plain, sft, _, sft_engine = search(APART, method="sft")
    first = [entry for entry in journal if entry[0].rollout == 1]
    assert bare(first) == bare(sft), "the first roll-out is SFT's"
    assert len(journal) > len(sft) and journal[answer - 1][0].rollout > 1
    truth = {s: sum(APART[t](x) for t, x in e.states[s].items()) for s, e in ((answer, engine), (plain, sft_engine))}
    assert truth[answer] > truth[plain]
    assert explanation_of("auto", brief, [outcome for _, outcome in journal]) == [does]


def test_the_first_runs_model_is_handed_over_where_the_second_is_not_better() -> None:
    _, journal, brief, _ = search(APART)
    worse = [
        replace(o, scores={task: 0.5 * score for task, score in o.scores.items()}) if s.rollout > 1 else o
        for s, o in journal
    ]
    running = METHODS["auto"].plan(brief)
    next(running)
    with pytest.raises(StopIteration) as ended:
        for outcome in worse:
            running.send(outcome)
    plain, _, _, _ = search(APART, method="sft")
    assert ended.value.value == plain
    said = explanation_of("auto", brief, worse)
    assert said[-1] == "The second run is not better on validation: the final model is of the first, plain fine-tuning."


@pytest.mark.parametrize("peaks", ["own", "random"])
def test_the_models_at_the_peaks_teach_the_second_run(peaks: str) -> None:
    """From the base model, as long as the first run; `random` deals the same models to others."""
    _, journal, brief, _ = search(APART, peaks=peaks)
    second = [segment for segment, _ in journal if segment.rollout > 1]
    assert second[0].parent == ROOT and {segment.rollout for segment in second} == {2}
    assert second[-1].stop == max(segment.stop for segment, _ in journal if segment.rollout == 1)
    (taught,) = {segment.teacher for segment in second}
    assert taught is not None
    ends = {outcome.snapshot: segment.stop / 16 for segment, outcome in journal}
    epochs = {task: ends[snapshot] for task, snapshot in taught.of(brief.tasks).items()}
    own = {"early": 1.0, "late": 7.0, "later": 8.0, "middle": 4.0}
    if peaks == "own":
        assert all(abs(epochs[task] - own[task]) <= 1 for task in APART)
    else:
        assert any(abs(epochs[task] - own[task]) > 1 for task in APART)
    assert all(set(taught.snapshots) <= segment.sources for segment in second), "a killed run reads them again"


def test_a_second_run_is_as_long_as_the_first() -> None:
    """Which had ended early."""
    _, journal, _, _ = search({**FALLING, "late": Curve(peak=3, fall=0.05)})
    stops = {rollout: [s.stop for s, _ in journal if s.rollout == rollout][-1] for rollout in (1, 2)}
    assert stops[1] == stops[2] < 8 * 16


def test_a_search_starts_at_the_first_peak_and_keeps_a_floor() -> None:
    _, journal, _, _ = search(APART, second="exclude")
    second = [segment for segment, _ in journal if segment.rollout > 1]
    start = second[0]
    assert start.parent != ROOT and 0.5 <= start.epoch <= 1.5
    assert start.mixture.tasks == tuple(APART) and start.mixture.shares == (0.15, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("curves", [APART, TOGETHER, FALLING])
@pytest.mark.parametrize("items", [0, 20, 1000])
@pytest.mark.parametrize("second", ["teach", "exclude"])
def test_it_costs_at_most_twice_sft(curves: dict[str, Curve], items: int, second: str) -> None:
    _, journal, _, _ = search(curves, items=items, second=second)
    _, sft, _, _ = search(curves, items=items, method="sft")
    for ours, theirs in zip(cost(journal), cost(sft), strict=True):
        assert ours <= 2 * theirs


@pytest.mark.parametrize("items", [0, 20, 1000])
def test_without_a_second_run_it_is_sft_bit_for_bit(items: int) -> None:
    answer, journal, brief, _ = search(TOGETHER, items=items)
    plain, sft, _, _ = search(TOGETHER, items=items, method="sft")
    assert answer == plain and bare(journal) == bare(sft)
    said = explanation_of("auto", brief, [outcome for _, outcome in journal])
    assert len(said) == 1 and said[0].startswith("There was no second run: ")


@pytest.mark.parametrize("second", ["teach", "exclude"])
def test_where_all_peak_together_there_is_no_second_run(second: str) -> None:
    """Not even where a gain below any error would do."""
    _, journal, brief, _ = search(dict.fromkeys(APART, Curve(peak=4)), second=second, realised=1.0, items=100_000)
    assert {segment.rollout for segment, _ in journal} == {1}
    said = explanation_of("auto", brief, [outcome for _, outcome in journal])
    assert said[-1].startswith("There was no second run: all sub-datasets are best at the same evaluation, at epoch ")


@pytest.mark.parametrize(("metric", "worth"), [(0.01, True), (-0.01, True), (-0.03, False)])
def test_a_test_metric_that_speaks_against_it_forbids_a_second_run(metric: float, worth: bool) -> None:
    """A loss within its standard error does not."""
    room = auto.Headroom(score=0.02, metric=metric, error=0.003, metric_error=0.02)
    assert room.pays() is worth


def test_a_second_run_must_be_expected_to_gain_what_the_items_can_show() -> None:
    room = auto.Headroom(score=0.02, metric=0.0, error=0.0099, metric_error=0.02)
    assert room.pays() and not room.pays(realised=0.95)
    taught, excluded = auto.Params(), auto.Params(second="exclude")
    assert room.pays(taught.expected) and not room.pays(excluded.expected)
    assert auto.Params(realised=0.3).expected == auto.Params(realised=0.3, second="exclude").expected == 0.3


def test_what_the_items_can_show_is_named() -> None:
    """It said that items can show "+0.0 points at the least"."""
    for error, shown in ((0.0001, "less than 0.1 points"), (0.003, "0.6 points at the least")):
        room = auto.Headroom(score=-0.008, metric=0.0, error=error, metric_error=0.01)
        said = auto._too_little(room, auto.Params(), [])
        assert said.startswith("reading each sub-dataset at its own peak would gain −0.8 points by search score and ")
        assert said.endswith(f"+0.0 points by test metric; the validation items can show {shown}.")
        said = auto._too_little(room, auto.Params(realised=0.4), [])
        assert said.endswith(f"to realise 40 % of that, and the validation items can show {shown}.")


@pytest.mark.parametrize(
    ("score", "error", "hides"), [(0.001, 0.001, False), (0.003, 0.004, True), (-0.03, 0.01, False)]
)
def test_a_gain_that_few_items_may_hide_is_said_with_the_way_to_find_out(
    score: float, error: float, hides: bool
) -> None:
    room = auto.Headroom(score=score, metric=0.0, error=error, metric_error=0.01)
    assert not room.pays()
    assert ("self_distil has a second run" in auto._too_little(room, auto.Params(), [])) is hides
    assert "self_distil" not in auto._too_little(room, auto.Params(second="exclude"), [])


def test_items_that_do_not_differ_between_peaks_show_nothing() -> None:
    """Smoothed curves may peak apart where their items are the same; any gain of the halves exceeds an error of 0."""
    room = auto.Headroom(score=0.02, metric=0.0, error=0.0, metric_error=0.0)
    assert not room.pays()
    assert auto._too_little(room, auto.Params(), []).startswith("no validation item differs between the evaluations")


def test_too_few_items_show_nothing() -> None:
    """The same curves as in the search above, but a gain that ten items cannot show."""
    answer, journal, _, _ = search(APART, items=10)
    plain, _, _, _ = search(APART, items=10, method="sft")
    assert answer == plain and {segment.rollout for segment, _ in journal} == {1}


def test_it_ends_early_only_when_nothing_rises() -> None:
    _, journal, brief, _ = search(FALLING, floor=0.1)
    ended = max(segment.stop for segment, _ in journal if segment.rollout == 1)
    assert 2 * 16 <= ended <= 4 * 16, "at 16 steps an epoch: after the peak at epoch 1 and a window of patience"
    assert "ended at epoch" in explanation_of("auto", brief, [outcome for _, outcome in journal])[0]
    _, journal, _, _ = search({**FALLING, "late": Curve(peak=8)})
    assert max(segment.stop for segment, _ in journal if segment.rollout == 1) == 8 * 16
