"""The one loop: ask, run, snapshot safe, journal (the commit point), tell, prune (design 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from msft.core.errors import Diverged, Stopped, UserError
from msft.core.retention import UNBOUNDED, Limits, replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Outcome, Segment, Snapshot
from msft.core.wire import differences, outcome_to_json
from msft.system import files
from msft.system.stopwatch import spent


class Engine(Protocol):
    """What trains and scores. Deterministic: the same segment from the same parent gives the same outcome."""

    def base(self) -> Outcome:
        """The base model, scored on the validation split of every sub-dataset."""

    def run(self, segment: Segment, number: int) -> Outcome:
        """Run segment `number`; the snapshot that it makes carries this number and is in the store on return.

        Its parent is in the store, or is where the last run ended: the engine stands there and needs no copy.
        """

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


TRAINED = ("snapshot", "train_loss", "tokens", "bytes")
"""What an outcome says of training; its tokens beside those of scores and probes."""

Record = Callable[[int, Segment, Outcome], None]
"""Called with (number, segment, outcome): makes the segment's record durable."""


def drive(
    search: Search,
    engine: Engine,
    store: Store,
    record: Record,
    past: Sequence[tuple[Segment, Outcome]] = (),
    announce: Callable[[int, Segment], None] = lambda number, segment: None,
    limits: Limits = UNBOUNDED,
    again: Callable[[int], None] = lambda number: None,
) -> Snapshot:
    """Run a search to its end and return its answer, which is durable once `store.finish()` has returned.

    `past` is the journal that the search was replayed from; snapshots that it names and that did not survive are
    recomputed, and must give the journaled outcomes bit for bit, or else `Diverged`. `announce` is told of each
    segment before it is run. `limits`: how many snapshots are held between segments (`core.retention`); those that
    were let go of and are asked for are recomputed without scores, and `again` is told of each segment that was.
    """
    return _Loop(search, engine, store, past, announce, limits, again).go(record)


def needed(search: Search) -> set[Snapshot]:
    """The snapshots that the search may still ask for; at its end, the answer."""
    segment = search.ask()
    if segment is None:
        assert search.answer is not None
        return {search.answer} - {ROOT}
    return ({segment.parent} | segment.keep) - {ROOT}


def _trained_only(outcome: Outcome) -> Outcome:
    """What is compared where training alone is repeated; scores of thousands of segments are the journal's to keep."""
    return replace(outcome, scores={}, reports={}, items=None, lookahead=None, losses=None)


class _Loop:
    """One search under way."""

    def __init__(
        self,
        search: Search,
        engine: Engine,
        store: Store,
        past: Sequence[tuple[Segment, Outcome]],
        announce: Callable[[int, Segment], None],
        limits: Limits,
        again: Callable[[int], None],
    ) -> None:
        self.search, self.engine, self.store, self.announce, self.again = search, engine, store, announce, again
        self.history = list(past)
        self.retention, _ = replayed(search.brief, past, search.ask(), search.answer, limits, search.outlook.window)
        self.safe = self.retention.held
        """What was made durable last; of a resumed run nobody knows, and each loss is one."""
        self.origin: frozenset[Snapshot] = frozenset()
        """What the roll-out that is on began from."""

    def go(self, record: Record) -> Snapshot:
        self._recover()
        while (segment := self.search.ask()) is not None:
            number = self.search.number
            self.announce(number, segment)
            files.stage("loop.run")
            try:
                outcome = self.engine.run(segment, number)
            except (Stopped, UserError):
                # What was reached need not be trained again.
                with spent("snapshot.durable"):
                    self.store.persist(self.retention.held)
                    self.store.finish()
                raise
            files.stage("loop.record")
            record(number, segment, outcome)
            files.stage("loop.tell")
            self.search.tell(outcome)
            self.history.append((segment, _trained_only(outcome)))
            self.retention.made(segment, outcome)
            self._settle()
        assert self.search.answer is not None
        return self.search.answer

    def _settle(self) -> None:
        """What a roll-out leaves behind is made durable while the next one is trained; the rest goes."""
        files.stage("loop.settle")
        settled = self.retention.settle(self.search.ask(), self.search.answer)
        self._hold(settled.first)
        for number, beside in settled.again:
            self.store.prune(beside)
            try:
                self._repeat(number, scored=False)
            except (Stopped, UserError):
                self.store.persist(beside)
                self.store.finish()
                raise
        if settled.again:
            self._hold(settled.held)

    @spent("snapshot.durable")
    def _hold(self, snapshots: frozenset[Snapshot], *, resumed: bool = False) -> None:
        """Let go of all others.

        The snapshot that a roll-out began from stays durable until the next one begins to train, needed or not:
        whatever a crash takes is trained again from there. (Scores at the roll-back point come before that, and may
        spare a snapshot the disk.) Under a limit it may have to go; what is left becomes durable first.
        """
        segment, limited = self.search.ask(), self.retention.limit is not None
        if resumed or self._begins(segment) or (limited and not self.safe <= snapshots):
            self.store.persist(snapshots)
            self.safe = snapshots
            self.origin = frozenset() if segment is None else frozenset({self._origin(segment)})
        self.store.prune(snapshots, () if limited else self.origin)

    def _begins(self, segment: Segment | None) -> bool:
        """Whether the next segment is the first that a roll-out trains, or there is none."""
        trained = next((past.rollout for past, _ in reversed(self.history) if past.trains), None)
        return segment is None or (segment.trains and segment.rollout != trained)

    def _origin(self, segment: Segment) -> Snapshot:
        """What the segment's roll-out began from."""
        while segment.start and self.history[segment.parent - 1][0].rollout == segment.rollout:
            segment = self.history[segment.parent - 1][0]
        return segment.parent

    def _recover(self) -> None:
        """Recompute what should be held and is gone, and where the search stands: the engine does not yet."""
        segment, held = self.search.ask(), self.retention.held
        if segment is not None:
            held |= {segment.parent} - {ROOT}
        for snapshot in sorted(held):
            lineage: list[Snapshot] = []
            while snapshot != ROOT and not self.store.has(snapshot):
                lineage.append(snapshot)
                snapshot = self.history[snapshot - 1][0].parent
            for number in reversed(lineage):
                self._repeat(number, scored=True)
                if self.retention.limit is not None:
                    self.store.prune(held | {number})
        files.stage("loop.settle")
        self._hold(held, resumed=True)

    def _repeat(self, number: int, *, scored: bool) -> None:
        """Run a journaled segment once more. Raises Diverged where it does not give what it gave."""
        segment, recorded = self.history[number - 1]
        self.announce(number, segment)
        files.stage("recover.run")
        if not scored:
            segment = replace(segment, score=(), probes=frozenset())
        was, now = outcome_to_json(recorded), outcome_to_json(self.engine.run(segment, number))
        if not scored:
            was, now = ({key: outcome[key] for key in TRAINED} for outcome in (was, now))
            was["tokens"], now["tokens"] = was["tokens"]["train"], now["tokens"]["train"]
        if changed := differences(was, now):
            raise Diverged(f"segment {number}, run again,", changed)
        self.again(number)
