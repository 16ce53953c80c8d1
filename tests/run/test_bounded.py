"""`snapshots.max`: a bounded store changes nothing but what is held and what is trained again (design 3.9)."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msft.core.errors import Diverged, Stopped
from msft.core.retention import replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot
from msft.methods import METHODS, outlook_of
from msft.run.loop import drive
from msft.testing import conformance
from msft.testing.fake import Curve, FakeEngine

Journal = list[tuple[Segment, Outcome]]
PRESETS = [(name, preset) for name, method in METHODS.items() for preset in method.presets]


class Counting(FakeEngine):
    """Counts snapshots at their most, and dies in the run that it is told to."""

    most = 0
    dies_at = -1

    def run(self, segment: Segment, number: int) -> Outcome:
        if len(self.runs) == self.dies_at:
            raise Stopped(15)
        return super().run(segment, number)

    def keep(self, number: int, segment: Segment, exposure: dict[str, float]) -> None:
        super().keep(number, segment, exposure)
        self.most = max(self.most, len(self.store.held))


def job(name: str, preset: str, seed: int, tasks: int) -> tuple[Counting, Brief]:
    draw = random.Random(seed)
    curves = {
        f"t{i}": Curve(peak=draw.choice([0.3, 1.0, 2.5, 6.0]), top=draw.choice([0.2, 0.6, 0.9]), fall=draw.random() / 9)
        for i in range(tasks)
    }
    engine = Counting(curves, {task: draw.choice([5, 9, 17]) for task in curves}, items=10, interference=0.05)
    return engine, conformance.brief_for(METHODS[name], engine, preset, horizon=5.0, eval_every=0.5)


def go(engine: Counting, brief: Brief, name: str, journal: Journal, limit: int | None) -> tuple[Snapshot, list[int]]:
    """Drives to the end, from what the journal holds; the answer, and which segments were trained again."""
    again: list[int] = []

    def record(number: int, segment: Segment, outcome: Outcome) -> None:
        journal.append((segment, outcome))

    search = Search(METHODS[name], brief, journal)
    answer = drive(
        search, engine, engine.store, record, journal[:], limits=((1, limit),), again=again.append
    )  # fmt: skip
    return answer, again


@pytest.mark.parametrize(("name", "preset"), PRESETS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), tasks=st.integers(1, 7), limit=st.integers(1, 5), data=st.data())
def test_a_bound_changes_no_decision(
    name: str, preset: str, seed: int, tasks: int, limit: int, data: st.DataObject
) -> None:
    free, brief = job(name, preset, seed, tasks)
    plain: Journal = []
    answer, _ = go(free, brief, name, plain, None)

    bound, _ = job(name, preset, seed, tasks)
    journal: Journal = []
    bounded, again = go(bound, brief, name, journal, limit)
    assert journal == plain
    assert bounded == answer
    assert bound.states[answer] == free.states[answer]
    assert bound.store.held == {answer} - {ROOT}
    # All parts of a merger are held while it is made.
    most = max(limit, *(len(segment.sources - {ROOT}) for segment, _ in plain))
    assert bound.most <= most + 1

    # What was held and trained again is a function of the journal.
    window = outlook_of(name, brief).window
    retention, settled = replayed(brief, plain, None, answer, ((1, limit),), window)
    assert retention.held == bound.store.held
    assert [number for each in settled for number, _ in each.again] == again
    assert all(len(each.held) <= most for each in settled)

    # Killed anywhere, recomputations included, and once more on the way back.
    again_bound, _ = job(name, preset, seed, tasks)
    resumed: Journal = []
    for _ in range(3):
        again_bound.dies_at = len(again_bound.runs) + data.draw(st.integers(0, max(1, len(bound.runs))), "dies after")
        try:
            go(again_bound, brief, name, resumed, limit)
        except Stopped:
            assert len(again_bound.store.held) <= most + 1
            if data.draw(st.booleans(), "killed"):
                again_bound.store.crash()
    again_bound.dies_at = -1
    assert go(again_bound, brief, name, resumed, limit)[0] == answer
    assert resumed == plain
    assert again_bound.states[answer] == free.states[answer]
    assert again_bound.most <= most + 2  # a resumed run holds where it stands as well, until it has gone on


def test_what_is_trained_again_must_be_what_it_was() -> None:
    """Only training is compared: nothing is scored again."""
    engine, brief = job("msft", "robust", 3, 6)
    plain: Journal = []
    _, again = go(engine, brief, "msft", plain, 1)
    number = again[0]
    engine, brief = job("msft", "robust", 3, 6)
    run = engine.run

    def drifts(segment: Segment, of: int) -> Outcome:
        outcome = run(segment, of)
        if of == number and engine.runs.count(of) > 1:
            assert not segment.score
            return dataclasses.replace(outcome, train_loss=0.123)
        return outcome

    engine.run = drifts  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=rf"segment {number}, run again,: .*: train_loss was .* is now 0\.123"):
        go(engine, brief, "msft", [], 1)
