"""auto: SFT unless a second run can pay; what it compares, what it hands over, and what it costs at most."""

from __future__ import annotations

import random
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
    ("teach", "A second run taught each sub-dataset by the model at its own peak: by the half"),
    ("exclude", "A second run excluded each sub-dataset at its own peak: by the half"),
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
    said = explanation_of("auto", brief, [outcome for _, outcome in journal])
    assert len(said) == 1 and said[0].startswith(does) and "is the final model" in said[0]


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
@pytest.mark.parametrize("seed", [13, 93, 307])
def test_where_all_peak_together_there_is_no_second_run(seed: int, second: str) -> None:
    """By few items, reading each at its own peak seems to pay, and the items that choose see one peak for all."""
    draw = random.Random(seed)
    tasks = "abc"[: draw.choice([2, 3])]
    curves = {
        task: Curve(peak=draw.choice([0.5, 1, 1.5, 2]), fall=draw.choice([0.3, 0.05, 0.5]), base=0.1,
                    top=draw.choice([0.9, 0.5, 1.0]))
        for task in tasks
    }  # fmt: skip
    engine = FakeEngine(curves, dict.fromkeys(curves, 16), items=draw.choice([8, 12, 20]))
    params = auto.Params(second=second, realised=1.0)  # type: ignore[arg-type]
    brief = brief_of(engine, params, horizon=2.0, eval_every=0.5)
    _, journal = run(METHODS["auto"], brief, engine)
    assert {segment.rollout for segment, _ in journal} == {1}
    (said,) = explanation_of("auto", brief, [outcome for _, outcome in journal])
    assert said.startswith(
        "There was no second run: by the half of the validation items that decides, all sub-datasets "
    )


@pytest.mark.parametrize(
    ("metric", "teach", "exclude"), [(0.01, True, True), (-0.01, True, False), (-0.03, False, False)]
)
def test_a_test_metric_that_speaks_against_it_forbids_a_second_run(metric: float, teach: bool, exclude: bool) -> None:
    """A loss within its standard error forbids a search only."""
    room = auto.Headroom(score=0.02, metric=metric, error=0.003, metric_error=0.02)
    assert auto._worth(room, auto.Params()) is teach
    assert auto._worth(room, auto.Params(second="exclude")) is exclude


def test_a_second_run_is_expected_to_realise_what_its_kind_was_seen_to() -> None:
    room = auto.Headroom(score=0.02, metric=0.0, error=0.006, metric_error=0.02)
    assert auto._worth(room, auto.Params(second="teach")) and not auto._worth(room, auto.Params(second="exclude"))
    assert not auto._worth(room, auto.Params(second="teach", realised=0.5))


def test_the_items_of_a_number_and_what_they_can_show_are_named() -> None:
    """A report has the headroom on all items too. It said that items can show "+0.0 points at the least"."""
    for error, shown in ((0.0001, "less than 0.1 points"), (0.003, "0.6 points at the least")):
        said = auto._declined(
            auto.Headroom(score=-0.008, metric=0.0, error=error, metric_error=0.01), auto.Params(), []
        )
        assert said.startswith(
            "There was no second run: by the half of the validation items that decides, reading each "
        )
        assert said.endswith(f"and these items can show {shown}.")


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


def outcome(snapshot: Snapshot, score: float, metric: float) -> Any:
    """A point whose items all have this score, and this share of right answers."""
    right = tuple(float(i < 10 * metric) for i in range(10))
    items, metrics = {"a": (score,) * 10}, {"a": right}
    measured = Outcome(snapshot=snapshot, scores={"a": score}, reports={"a": metric}, items=items, metrics=metrics)
    return auto.Point(snapshot=snapshot, epoch=1.0, scores=measured.scores, outcome=measured)


@pytest.mark.parametrize(
    ("score", "metric", "better"),
    [(0.6, 0.5, True), (0.5, 0.6, False), (0.4, 0.9, False), (0.6, 0.4, True), (0.6, 0.1, False)],
)
def test_the_candidate_needs_the_search_score_and_must_not_lose_the_metric(
    score: float, metric: float, better: bool
) -> None:
    """One right answer less of ten is within the standard error, four are not."""
    verdict = auto._compare(outcome(2, score, metric), outcome(1, 0.5, 0.5), ("a",), {"a": range(10)})
    assert verdict.better is better


def test_the_items_that_compare_are_not_those_that_choose() -> None:
    """Peaks and candidate are the same whatever the comparing items say; only the verdict changes."""
    _, journal, brief, _ = search(APART)

    def turned(outcome: Outcome) -> Outcome:
        """The comparing half of each sub-dataset's items, upside down, after the first roll-out."""
        if outcome.items is None:
            return outcome
        items = {t: list(values) for t, values in outcome.items.items()}
        for task, values in items.items():
            for i in auto.halves(len(values), task, auto.SPLITS)[1]:
                values[i] = 0.0
        kept = {task: tuple(values) for task, values in items.items()}
        means = {task: sum(values) / len(values) for task, values in kept.items()}
        return replace(outcome, items=kept, metrics=kept, scores=means, reports=means)

    second = [number for number, (segment, _) in enumerate(journal) if segment.rollout > 1]
    changed = [(s, turned(o) if n in second else o) for n, (s, o) in enumerate(journal)]
    replayed = auto_search(brief, changed)
    assert journal[replayed - 1][0].rollout == 1, "the worse candidate is discarded"
    said = explanation_of("auto", brief, [outcome for _, outcome in changed])
    assert "was discarded" in said[0]


def auto_search(brief: Brief, journal: Journal) -> Snapshot:
    """The answer of a replayed search; it raises where the method asks for anything else."""
    from msft.core.search import Search

    answer = Search(METHODS["auto"], brief, journal).answer
    assert answer is not None
    return answer
