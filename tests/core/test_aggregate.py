"""An aggregate: items that are only scored, and alone choose the final model."""

from __future__ import annotations

import pytest

from msft.core.retention import replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT
from msft.core.wire import brief_from_json, brief_to_json
from msft.methods import METHODS
from msft.run.loop import drive
from msft.testing import conformance
from msft.testing.fake import Curve, FakeEngine, brief_of

CURVES = {"a": Curve(peak=0.9, fall=0.3), "b": Curve(peak=2.2, fall=0.3), "c": Curve(peak=6.0)}
SIZES = {"a": 24, "b": 17, "c": 40}
CHOOSING = [name for name in METHODS if name not in ("continual", "merge")]
"""Those that choose by the average unless there is an aggregate."""


def run(name, peak, held=None, **changes):
    """Segments with their outcomes, the snapshot of the final model, and the brief."""
    curves = CURVES if peak is None else CURVES | {"exam": Curve(peak=peak, fall=0.3)}
    engine = FakeEngine(
        curves, SIZES, held=held, aggregate=None if peak is None else "exam", items=changes.pop("items", 0)
    )
    plain = conformance.brief_for(METHODS[name], engine, next(iter(METHODS[name].presets)), horizon=4.0)
    brief = brief_of(engine, plain.params, **{"horizon": 4.0, **changes})
    made = []
    search = Search(METHODS[name], brief)
    answer = drive(search, engine, engine.store, lambda number, segment, outcome: made.append((segment, outcome)))
    return made, answer, brief


def scores_of(made, brief):
    """Snapshot -> all that was scored of it."""
    found = {ROOT: dict(brief.base.scores)}
    for _, outcome in made:
        found.setdefault(outcome.snapshot, {}).update(outcome.scores)
    return found


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("candidates", ["decisions", "ticks"])
def test_the_final_model_is_the_point_with_the_best_score_of_it(name, candidates):
    when = "tick" if candidates == "ticks" else "rollout"
    made, answer, brief = run(name, 0.6, candidates=candidates, score_excluded=when)
    found = scores_of(made, brief)
    full = {snapshot: scores for snapshot, scores in found.items() if scores.keys() >= {*SIZES, "exam"}}
    assert len(full) > 2, "nothing to choose from"
    best = max(scores["exam"] for scores in full.values())
    # What is never a candidate, as the first run of `sro`, may be better.
    own = name in ("sro", "soft_sro", "placebo")
    assert full[answer]["exam"] == best or own
    assert all("exam" not in segment.mixture.tasks for segment, _ in made)
    assert brief_from_json(brief_to_json(brief), brief.params) == brief


@pytest.mark.parametrize("name", ["msft", "sft", "one_pass", "sro"])
def test_it_decides_no_exclusion(name):
    """The segments are those without it, but for what they score and, at their end, for what is kept."""
    plain, _, _ = run(name, None)
    made, _, _ = run(name, 0.6)

    def trained(segments):
        return [(s.mixture, s.rollout, s.start, s.stop, s.epoch) for s, _ in segments if s.trains]

    assert trained(made) == trained(plain)
    assert [tuple(t for t in s.score if t != "exam") for s, _ in made] == [s.score for s, _ in plain]


def test_it_is_scored_only_where_a_point_may_become_the_final_model():
    made, _, _ = run("msft", 0.6)
    ends = [number for number, (s, _) in enumerate(made) if "exam" in s.score]
    first = [segment for segment, _ in made if segment.rollout == 1]
    assert 0 < len(ends) < sum(set(SIZES) <= set(s.score) for s, _ in made)
    assert not any("exam" in segment.score for segment in first[:-1])  # whose every sub-dataset is scored
    assert all("exam" in s.score for s, _ in run("sft", 0.6)[0])  # which may take any of them


def test_the_run_on_all_rows_is_scored_on_it_alone():
    held = {"a": 5, "b": 2, "c": 9}
    made, answer, _ = run("msft", 2.0, held=held)
    final = [segment for segment, _ in made if segment.why == "refit"]
    assert [segment.score for segment in final[:-1]] == [()] * (len(final) - 1)
    assert final[-1].score == ("exam",) and answer == len(made)
    assert made[-1][1].scores.keys() == {"exam"}
    tick = run("sft", 2.0, held=held, score_excluded="tick", candidates="ticks")[0]
    assert tick[-1][0].score == ("exam",)


def test_a_bounded_store_replays_it():
    made, answer, brief = run("msft", 0.6)
    retention, _ = replayed(brief, made, None, answer, ((1, 2),))
    assert retention.held <= {answer}
    for cut in (1, len(made) // 2, len(made)):
        search = Search(METHODS["msft"], brief, made[:cut])
        assert search.ask() == (made[cut][0] if cut < len(made) else None)
