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
from msft.stopwatch import spent


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
        """Make these survive the process."""

    def prune(self, keep: Collection[Snapshot]) -> None:
        """Let go of all others."""


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
    """Run a search to its end and return its answer, which is durable then.

    `past` is the journal that the search was replayed from; snapshots that it names and that did not survive are
    recomputed, and must give the journaled outcomes bit for bit, or else `Diverged`. `announce` is told of each
    segment before it is run.
    """
    _recover(search, engine, store, past, announce)
    while (segment := search.ask()) is not None:
        number = search.number
        announce(number, segment)
        files.stage("loop.run")
        try:
            outcome = engine.run(segment, number)
        except (Stopped, UserError):
            with spent("snapshot.durable"):
                store.persist(needed(search))  # what was reached need not be trained again
            raise
        files.stage("loop.record")
        record(number, segment, outcome)
        files.stage("loop.tell")
        search.tell(outcome)
        _settle(search, store)
    assert search.answer is not None
    return search.answer


def needed(search: Search) -> set[Snapshot]:
    """The snapshots that the search may still ask for; at its end, the answer."""
    segment = search.ask()
    if segment is None:
        assert search.answer is not None
        return {search.answer} - {ROOT}
    return ({segment.parent} | segment.keep) - {ROOT}


@spent("snapshot.durable")
def _settle(search: Search, store: Store) -> None:
    """What a roll-out leaves behind survives a crash before the next one begins; the rest goes."""
    files.stage("loop.settle")
    keep = needed(search)
    segment = search.ask()
    if segment is None or segment.start == 0:
        store.persist(keep)
    store.prune(keep)


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
    _settle(search, store)
