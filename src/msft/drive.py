"""The one loop: ask, run, snapshot safe, journal (the commit point), tell, prune (DESIGN 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from msft import files
from msft.core.errors import Diverged, Stopped, UserError
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Outcome, Segment, Snapshot
from msft.core.wire import differences, outcome_to_json


class Engine(Protocol):
    """What trains and scores. Deterministic: the same segment from the same parent gives the same outcome."""

    def base(self) -> Outcome:
        """The base model, scored on the validation split of every sub-dataset."""

    def run(self, segment: Segment, number: int) -> Outcome:
        """Run segment `number`; the snapshot that it makes carries this number and is in the store on return."""

    def test(self, snapshot: Snapshot) -> Outcome:
        """A snapshot, scored on the test split of every sub-dataset that has one; its items carry the report."""

    def export(self, snapshot: Snapshot, folder: Path) -> None:
        """Write the snapshot as a plain Hugging Face folder."""


class Store(Protocol):
    """What keeps snapshots. `ROOT` is not its concern."""

    def has(self, snapshot: Snapshot) -> bool:
        """Whether it can be restored."""

    def persist(self, snapshots: Collection[Snapshot]) -> None:
        """See to it that these survive the process; what an earlier call began is done on return."""

    def prune(self, keep: Collection[Snapshot], durable: Collection[Snapshot] = ()) -> None:
        """Let go of all others; of `durable`, what survives the process goes on doing so."""

    def finish(self) -> None:
        """Wait until all that was to survive the process does."""


Record = Callable[[int, Segment, Outcome], None]
"""Called with (number, segment, outcome): makes the segment's record durable."""


def drive(
    search: Search,
    engine: Engine,
    store: Store,
    record: Record,
    past: Sequence[tuple[Segment, Outcome]] = (),
    announce: Callable[[int, Segment], None] = lambda number, segment: None,
) -> Snapshot:
    """Run a search to its end and return its answer, which is durable once `store.finish()` has returned.

    `past` is the journal that the search was replayed from; snapshots that it names and that did not survive are
    recomputed, and must give the journaled outcomes bit for bit, or else `Diverged`. `announce` is told of each
    segment before it is run.
    """
    segments = [segment for segment, _ in past]
    _recover(search, engine, store, past, announce)
    _settle(search, store, segments, resumed=True)
    while (segment := search.ask()) is not None:
        number = search.number
        announce(number, segment)
        files.stage("loop.run")
        try:
            outcome = engine.run(segment, number)
        except (Stopped, UserError):
            store.persist(needed(search))  # what was reached need not be trained again
            store.finish()
            raise
        files.stage("loop.record")
        record(number, segment, outcome)
        files.stage("loop.tell")
        search.tell(outcome)
        segments.append(segment)
        _settle(search, store, segments)
    assert search.answer is not None
    return search.answer


def needed(search: Search) -> set[Snapshot]:
    """The snapshots that the search may still ask for; at its end, the answer."""
    segment = search.ask()
    if segment is None:
        assert search.answer is not None
        return {search.answer} - {ROOT}
    return ({segment.parent} | segment.keep) - {ROOT}


def _settle(search: Search, store: Store, segments: Sequence[Segment], *, resumed: bool = False) -> None:
    """What a roll-out leaves behind is made durable while the next one is trained; the rest goes.

    The snapshot that a roll-out began from stays durable until the next one begins, needed or not: whatever a crash
    takes is trained again from there. What was trained again is durable at once.
    """
    files.stage("loop.settle")
    keep = needed(search)
    segment = search.ask()
    if resumed or segment is None or segment.rollout != segments[-1].rollout:
        store.persist(keep)
    store.prune(keep, () if segment is None else {_origin(segment, segments)})


def _origin(segment: Segment, segments: Sequence[Segment]) -> Snapshot:
    """What the segment's roll-out began from."""
    while segment.start and segments[segment.parent - 1].rollout == segment.rollout:
        segment = segments[segment.parent - 1]
    return segment.parent


def _recover(
    search: Search,
    engine: Engine,
    store: Store,
    history: Sequence[tuple[Segment, Outcome]],
    announce: Callable[[int, Segment], None],
) -> None:
    """Recompute the snapshots that are needed and gone, each from its newest ancestor that is there."""
    for snapshot in sorted(needed(search)):
        lineage: list[Snapshot] = []
        while snapshot != ROOT and not store.has(snapshot):
            lineage.append(snapshot)
            snapshot = history[snapshot - 1][0].parent
        for number in reversed(lineage):
            segment, recorded = history[number - 1]
            announce(number, segment)
            files.stage("recover.run")
            outcome = engine.run(segment, number)
            if changed := differences(outcome_to_json(recorded), outcome_to_json(outcome)):
                raise Diverged(f"segment {number}, run again,", changed)
