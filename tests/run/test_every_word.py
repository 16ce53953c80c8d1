"""Methods that use every word of the vocabulary pass the suite, and are resumed wherever they are killed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods_of_every_word import OWN

from msft.core.errors import RunError
from msft.core.method import Method
from msft.core.retention import replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Plan, Segment, Snapshot
from msft.run.loop import drive
from msft.testing import conformance
from msft.testing.conformance import Case, Journal
from msft.testing.fake import FakeEngine

CASES = [
    pytest.param(name, case, id=f"{name}-{case}") for name, method in OWN.items() for case in conformance.cases(method)
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_conformance(name: str, case: Case) -> None:
    conformance.check(OWN[name], case)


class Killed(Exception):  # noqa: N818
    pass


def job(name: str, seed: int = 20) -> tuple[FakeEngine, Brief]:
    engine = Case(preset="default", job="apart", sizes="plain", items=10).engine()
    return engine, conformance.brief_for(OWN[name], engine, seed=seed, horizon=3.0 if name == "averages" else 10.0)


def go(
    engine: FakeEngine, brief: Brief, name: str, journal: Journal, limit: int | None, until: int = 10**6
) -> tuple[Snapshot, list[int]]:
    """Drives on from the journal, and is killed after so many records; the answer, and what was run again."""
    again: list[int] = []

    def record(number: int, segment: Segment, outcome: Outcome) -> None:
        journal.append((segment, outcome))
        if len(journal) == until:
            raise Killed

    search = Search(OWN[name], brief, journal)
    answer = drive(search, engine, engine.store, record, journal[:], limits=((1, limit),), again=again.append)
    return answer, again


@pytest.mark.parametrize("limit", [None, 2, 1])
@pytest.mark.parametrize("name", OWN)
def test_killed_at_every_cut_of_its_journal(name: str, limit: int | None) -> None:
    """What the crash lost is run again, over all ancestors, and gives the journaled outcomes."""
    engine, brief = job(name)
    plain: Journal = []
    answer, _ = go(engine, brief, name, plain, None)
    states = dict(engine.states)
    for cut in range(1, len(plain) + 1):
        engine, _ = job(name)
        journal: Journal = []
        with suppress(Killed):
            go(engine, brief, name, journal, limit, until=cut)
        assert len(journal) == cut
        if cut % 2:  # the disk was fast enough for all that was held
            engine.store.persist(engine.store.held)
        engine.store.crash()
        engine.states = {ROOT: engine.states[ROOT]} | {n: engine.states[n] for n in engine.store.held}
        engine.live = ROOT
        assert go(engine, brief, name, journal, limit)[0] == answer
        assert journal == plain
        assert engine.states[answer] == states[answer]
        assert engine.store.held == {answer} - {ROOT}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 4), data=st.data())
def test_a_bound_changes_no_decision_whatever_the_ancestors(seed: int, limit: int, data: st.DataObject) -> None:
    free, brief = job("wanders", seed)
    plain: Journal = []
    answer, _ = go(free, brief, "wanders", plain, None)
    bound, _ = job("wanders", seed)
    journal: Journal = []
    bounded, again = go(bound, brief, "wanders", journal, limit)
    assert (bounded, journal) == (answer, plain)
    assert bound.states[answer] == free.states[answer]
    # What was held and run again is a function of the journal; only what a segment is made from may be more than the
    # bound: the parts of a blend, and a teacher beside the parent.
    retention, settled = replayed(brief, plain, None, answer, ((1, limit),))
    assert retention.held == bound.store.held == {answer} - {ROOT}
    assert [number for each in settled for number, _ in each.again] == again
    following = [segment for segment, _ in plain[1:]]
    for each, segment in zip(settled, following, strict=False):
        assert len(each.held) <= max(limit, len(segment.sources - {ROOT}))
    # Killed twice, with what was not durable lost.
    killed, _ = job("wanders", seed)
    resumed: Journal = []
    for _ in range(2):
        with suppress(Killed):
            go(killed, brief, "wanders", resumed, limit, until=len(resumed) + data.draw(st.integers(1, 9)))
        killed.store.crash()
        killed.live = ROOT
    assert go(killed, brief, "wanders", resumed, limit)[0] == answer
    assert resumed == plain
    assert killed.states[answer] == free.states[answer]


def test_without_a_bound_only_what_a_crash_lost_is_run_again() -> None:
    """A roll-out that has begun to train has made durable what its blends are made from, too."""
    engine, brief = job("soups")
    journal: Journal = []
    with suppress(Killed):
        go(engine, brief, "soups", journal, None, until=10)  # the blend of a roll-out's ticks has been trained on
    assert journal[-1][0].trains and journal[-2][0].blend
    engine.store.crash()
    engine.runs.clear()
    go(engine, brief, "soups", journal, None)
    assert engine.runs == [10, 11, 12]


@pytest.mark.parametrize("name", ["averages", "soups"])
def test_a_blend_is_the_mean_of_what_its_parts_were_trained_on(name: str) -> None:
    engine, brief = job(name)
    journal: Journal = []
    go(engine, brief, name, journal, None)
    blends = [(number, segment.blend) for number, (segment, _) in enumerate(journal, 1) if segment.blend]
    assert blends
    for number, parts in blends:
        for task in brief.tasks:
            mean = sum(share * engine.states[snapshot][task] for snapshot, share in parts)
            assert engine.states[number][task] == pytest.approx(mean, abs=1e-12)
    if name == "averages":  # the chain is the mean of all ticks
        ticks = [number for number, (segment, _) in enumerate(journal, 1) if segment.trains]
        for task in brief.tasks:
            mean = sum(engine.states[tick][task] for tick in ticks) / len(ticks)
            assert engine.states[blends[-1][0]][task] == pytest.approx(mean, abs=1e-12)
        assert {segment.rollout for segment, _ in journal} == {1}, "training goes on as if nothing had happened"


def test_a_segment_that_continues_from_a_blend_begins_a_roll_out() -> None:
    engine, brief = job("soups")
    journal: Journal = []
    go(engine, brief, "soups", journal, None)
    number, blend = next((number, s) for number, (s, _) in enumerate(journal, 1) if s.blend)
    after = journal[number][0]
    assert (after.parent, after.start, after.rollout) == (number, 0, blend.rollout + 1)

    def middle(brief: Brief) -> Plan:
        for segment, _ in journal[:number]:
            yield segment
        yield replace(after, start=2, stop=4)
        return number

    message = rf"segment {number + 1}: the method continues a roll-out at step 2 from snapshot {number}, and the last "
    with pytest.raises(RunError, match=message + rf"training ended at step {journal[number - 2][0].stop}"):
        Search(Method(plan=middle, Params=type(None)), brief, journal[:number])
