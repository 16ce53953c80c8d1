"""The one suite that every method passes (design 2.1)."""

from __future__ import annotations

import dataclasses
import math

import pytest

from fake_engine import Curve, FakeEngine, brief_of
from msft.core.errors import Diverged
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot
from msft.core.wire import (
    brief_from_json,
    brief_to_json,
    outcome_from_json,
    outcome_to_json,
    segment_from_json,
    segment_to_json,
)
from msft.methods import METHODS
from msft.run.loop import drive, needed

JOBS = {
    "apart": {"a": Curve(peak=0.7), "b": Curve(peak=2.0), "c": Curve(peak=4.5), "d": Curve(peak=7.0)},
    "one": {"a": Curve(peak=1.3)},
    "never": {"a": Curve(peak=1.0), "b": Curve(peak=100.0)},
    "at_the_start": {"a": Curve(peak=1e-9, base=0.8), "b": Curve(peak=2.0)},
    "together": {"a": Curve(peak=2.0), "b": Curve(peak=2.0), "c": Curve(peak=2.0)},
    "flat": {"a": Curve(top=0.2, fall=0.0), "b": Curve(top=0.2, fall=0.0), "c": Curve(top=0.2, fall=0.0)},
    "flat_beside": {"a": Curve(top=0.0, base=0.0, fall=0.0), "b": Curve(peak=1.0)},
}
SIZES = {"plain": (17, 9, 30, 12), "one_step_an_epoch": (1, 1, 1, 1)}


def settings(name: str, preset: str) -> tuple[dict[str, object], object]:
    method = METHODS[name]
    values = dict(method.presets[preset])
    params = {f.name for f in dataclasses.fields(method.Params)}
    made = method.Params(**{k: v for k, v in values.items() if k in params})
    brief = {k: (math.inf if v is None else v) for k, v in values.items() if k not in params}
    if "max_epochs" in brief:
        brief["horizon"] = brief.pop("max_epochs")
    return brief, made


CASES = [
    pytest.param(name, preset, job, size, noise, id=f"{name}-{preset}-{job}-{size}-{noise}")
    for name, method in METHODS.items()
    for preset in method.presets
    for job in JOBS
    for size in SIZES
    for noise in (0, 20)
]


def engine_for(job: str, size: str, noise: int) -> FakeEngine:
    curves = JOBS[job]
    return FakeEngine(curves, dict(zip(curves, SIZES[size], strict=False)), items=noise, interference=0.05)


def run(engine: FakeEngine, brief: Brief, name: str) -> tuple[Snapshot, list[tuple[Segment, Outcome]]]:
    journal: list[tuple[Segment, Outcome]] = []
    search = Search(METHODS[name], brief)
    answer = drive(search, engine, engine.store, lambda _, segment, outcome: journal.append((segment, outcome)))
    return answer, journal


@pytest.mark.parametrize(("name", "preset", "job", "size", "noise"), CASES)
def test_conformance(name: str, preset: str, job: str, size: str, noise: int) -> None:
    engine = engine_for(job, size, noise)
    changes, params = settings(name, preset)
    brief = brief_of(engine, params, **changes)
    answer, journal = run(engine, brief, name)  # it ends; a let-go parent fails inside the engine

    # The answer is a snapshot that the run made, and alone is left.
    assert answer == ROOT or journal[answer - 1][1].snapshot == answer
    assert engine.store.held == {answer} - {ROOT}
    assert answer == ROOT or answer in engine.store.durable

    check_segments(brief, journal)
    check_retention(name, brief, journal)
    check_resume(name, brief, journal, answer, thorough=job == "apart" and not noise)
    check_crash(name, brief, journal, answer, engine_for(job, size, noise))


@pytest.mark.parametrize(("name", "preset", "job", "size", "noise"), [case for case in CASES if case.values[-1]])
def test_scoring_the_excluded_at_every_tick_decides_nothing(
    name: str, preset: str, job: str, size: str, noise: int
) -> None:
    """The same segments from the same parents and the same answer; only more is measured, and nothing twice."""
    changes, params = settings(name, preset)

    def searched(when: str) -> tuple[Snapshot, list[tuple[Segment, Outcome]], Brief]:
        engine = engine_for(job, size, noise)
        brief = brief_of(engine, params, **changes, score_excluded=when)
        return *run(engine, brief, name), brief

    answer, plain, _ = searched("rollout")
    same, full, brief = searched("tick")
    assert same == answer
    assert [dataclasses.replace(s, score=()) for s, _ in full] == [dataclasses.replace(s, score=()) for s, _ in plain]
    measured: dict[Snapshot, set[str]] = {ROOT: set(brief.tasks)}
    for (asked, fewer), (segment, more) in zip(plain, full, strict=True):
        assert segment.score == (brief.tasks if segment.trains and asked.score else segment.score)
        assert not measured.get(more.snapshot, set()) & set(segment.score)
        measured.setdefault(more.snapshot, set()).update(segment.score)
        assert all(more.scores[task] == fewer.scores[task] for task in asked.score if task in segment.score)
    assert {s: tasks for s, tasks in measured.items() if tasks not in (set(brief.tasks), set())} == {}
    wire = brief_from_json(brief_to_json(brief), params=params)
    assert Search(METHODS[name], wire, full).answer == answer


def test_a_brief_from_before_the_excluded_had_a_choice_is_still_read() -> None:
    brief = brief_of(engine_for("apart", "plain", 0), None)
    assert "score_excluded" not in brief_to_json(brief)
    assert brief_from_json(brief_to_json(brief)) == brief


def check_segments(brief: Brief, journal: list[tuple[Segment, Outcome]]) -> None:
    """Roll-outs are numbered in order, continue where they ended, and start afresh where they must."""
    rollout = 0
    for number, (segment, _) in enumerate(journal, 1):
        assert segment.parent < number
        assert segment.rollout in (rollout, rollout + 1)
        assert (segment.rollout == rollout + 1) <= (segment.start == 0)
        if segment.rollout == rollout:
            before, made = journal[number - 2]
            assert (segment.parent, segment.start) == (made.snapshot, before.stop)
            assert segment.mixture.tasks == before.mixture.tasks
        rollout = segment.rollout
        assert segment.trains or segment.start == 0
        assert ROOT not in segment.keep


def check_retention(name: str, brief: Brief, journal: list[tuple[Segment, Outcome]]) -> None:
    """At most min(active, ticks + 1) + 2 snapshots between segments, plus the smoothing half-window (design 3.9)."""
    half = getattr(brief.params, "smooth", 1) // 2
    tick = 0
    for i, (segment, _) in enumerate(journal):
        tick = 0 if i and journal[i - 1][0].rollout != segment.rollout else tick
        held = ({segment.parent} | segment.keep) - {ROOT}
        assert len(held) <= min(len(brief.tasks), tick + 1) + 2 + half
        tick += segment.trains


def check_resume(
    name: str, brief: Brief, journal: list[tuple[Segment, Outcome]], answer: Snapshot, *, thorough: bool
) -> None:
    """Replayed from any cut, the method asks for what it asked for."""
    wire = [(segment_from_json(segment_to_json(s)), outcome_from_json(outcome_to_json(o))) for s, o in journal]
    assert wire == journal
    last = len(journal)
    for cut in range(last + 1) if thorough else {0, 1, last // 3, last // 2, last - 1, last}:
        search = Search(METHODS[name], brief, wire[:cut])
        for segment, outcome in journal[cut:]:
            assert search.ask() == segment
            assert search.ask() == segment  # idempotent
            search.tell(outcome)
        assert search.ask() is None
        assert search.answer == answer


def check_crash(
    name: str, brief: Brief, journal: list[tuple[Segment, Outcome]], answer: Snapshot, engine: FakeEngine
) -> None:
    """A crash that loses every snapshot since the last durable one changes nothing."""
    cut = 2 * len(journal) // 3
    rest: list[tuple[Segment, Outcome]] = []

    class Killed(Exception):  # noqa: N818
        pass

    def record(_: int, segment: Segment, outcome: Outcome) -> None:
        rest.append((segment, outcome))
        if len(rest) == cut:
            raise Killed

    with pytest.raises(Killed):
        drive(Search(METHODS[name], brief), engine, engine.store, record)
    engine.store.crash()
    search = Search(METHODS[name], brief, rest)
    wanted = needed(search)
    resumed = drive(search, engine, engine.store, lambda _, s, o: rest.append((s, o)), past=rest[:])
    assert resumed == answer
    assert rest == journal
    assert all(engine.states[s] is not None for s in wanted)


@pytest.mark.parametrize("name", METHODS)
def test_a_changed_brief_is_refused_with_the_difference_named(name: str) -> None:
    engine = engine_for("apart", "plain", 0)
    changes, params = settings(name, next(iter(METHODS[name].presets)))
    brief = brief_of(engine, params, **changes)
    _, journal = run(engine, brief, name)
    changed = dataclasses.replace(brief, batch_size=7)
    with pytest.raises(Diverged, match=r"segment 1: .*stop was \d+, is now \d+"):
        Search(METHODS[name], changed, journal)


def test_an_outcome_that_does_not_answer_is_refused() -> None:
    engine = engine_for("apart", "plain", 0)
    search = Search(METHODS["sft"], brief_of(engine, METHODS["sft"].Params()))
    segment = search.ask()
    assert segment is not None
    good = engine.run(segment, 1)
    for bad in (
        dataclasses.replace(good, snapshot=3),
        dataclasses.replace(good, scores={"a": 1.0}),
        dataclasses.replace(good, reports={}),
    ):
        with pytest.raises(ValueError, match="the outcome must"):
            search.tell(bad)
    search.tell(good)
    assert search.ask() != segment
