"""The search loop: ask, run, make the snapshot safe, journal (the commit point), tell, prune (design 2.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from msft.core.errors import Diverged, Stopped, UserError
from msft.core.retention import UNBOUNDED, Limits, needed_beside, repeated, replayed
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Outcome, Segment, Snapshot
from msft.core.wire import Json, differences, outcome_to_json
from msft.system import files
from msft.system.stopwatch import spent


class Engine(Protocol):
    """Trains and scores. Deterministic: the same segment from the same parent gives the same outcome."""

    def base(self) -> Outcome:
        """Score the base model on the validation split of every sub-dataset."""

    def run(self, segment: Segment, number: int) -> Outcome:
        """Run segment `number`; the snapshot that it makes has this number and is in the store on return.

        Each of its sources is in the store or, where the last run ended, is the engine's live state, of which no copy
        is needed.
        """

    def test(self, snapshot: Snapshot) -> Outcome:
        """Score a snapshot on every test split; `items` are those of the test metric."""

    def export(self, snapshot: Snapshot, folder: Path) -> None:
        """Write the snapshot as a plain Hugging Face folder."""


class Store(Protocol):
    """Stores snapshots, except `ROOT`."""

    @property
    def durable(self) -> Collection[Snapshot]:
        """Those that are on disk, or are being written."""

    def has(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot can be restored."""

    def persist(self, snapshots: Collection[Snapshot]) -> None:
        """Start to make these durable; returns once what an earlier call started is done."""

    def prune(self, keep: Collection[Snapshot], durable: Collection[Snapshot] = ()) -> None:
        """Drop all others; those of `durable` that are on disk stay there."""

    def finish(self) -> None:
        """Wait until everything that `persist` started is done."""


TRAINED = ("snapshot", "train_loss", "tokens", "bytes")
"""The fields of an outcome that training determines; `tokens` also counts those of scores and probes."""

NEAR = 1e-3
"""How much a recomputed number may differ where another number of processes has computed it."""

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
    *,
    exact: bool = True,
) -> Snapshot:
    """Run a search to its end; return the final model's snapshot, which is durable once `store.finish()` has returned.

    `record` is called after each segment. `past` is the journal that the search was replayed from: snapshots that are
    still needed and are missing are recomputed, and must give the journaled outcomes bit for bit; otherwise `Diverged`
    is raised. `announce` is called before each segment is run. `limits`: how many snapshots are kept between segments
    (`core.retention`); dropped ones that are requested later are recomputed without scores. `again` is called for each
    segment that was recomputed. `exact=False`: recomputed outcomes may differ by NEAR, because another number of
    processes adds up in another order; the search goes on from the journaled ones.
    """
    return _Loop(search, engine, store, past, announce, limits, again, exact=exact).go(record)


def needed(search: Search) -> set[Snapshot]:
    """The snapshots that the search may still request; at its end, the final one."""
    segment = search.ask()
    if segment is None:
        assert search.answer is not None
        return {search.answer} - {ROOT}
    return set((segment.sources | segment.keep) - {ROOT})


def _trained_only(outcome: Outcome) -> Outcome:
    """The outcome without scores and probes, to save memory over thousands of segments; the journal keeps those."""
    return replace(outcome, scores={}, reports={}, items=None, metrics=None, lookahead=None, losses=None, loss=None)


def far(was: Json, now: Json) -> list[str]:
    """As `differences`, but of numbers only those that differ by more than NEAR; a snapshot's bytes may differ, too."""

    def rounded(one: Any, other: Any) -> Any:
        if isinstance(one, dict) and isinstance(other, dict):
            return {key: rounded(value, other.get(key)) for key, value in one.items() if key != "bytes"}
        if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            return [rounded(*pair) for pair in zip(one, other, strict=True)]
        if isinstance(one, float) and isinstance(other, float):
            return other if math.isclose(one, other, rel_tol=NEAR, abs_tol=NEAR) else one
        return one

    return differences(rounded(was, now), {key: value for key, value in now.items() if key != "bytes"})


class _Loop:
    """One search in progress."""

    def __init__(
        self,
        search: Search,
        engine: Engine,
        store: Store,
        past: Sequence[tuple[Segment, Outcome]],
        announce: Callable[[int, Segment], None],
        limits: Limits,
        again: Callable[[int], None],
        *,
        exact: bool,
    ) -> None:
        self.exact = exact
        self.search, self.engine, self.store, self.announce, self.again = search, engine, store, announce, again
        self.history = list(past)
        self.retention, _ = replayed(search.brief, past, search.ask(), search.answer, limits, search.outlook.window)
        self.safe = self.retention.held
        """Snapshots written by the last `persist()`. After a resume this is unknown, so it starts as everything
        retained: dropping any of them persists the rest first."""
        self.origin: frozenset[Snapshot] = frozenset()
        """The snapshot that the current roll-out began from."""

    def go(self, record: Record) -> Snapshot:
        self._recover()
        while (segment := self.search.ask()) is not None:
            number = self.search.number
            self.announce(number, segment)
            files.stage("loop.run")
            try:
                outcome = self.engine.run(segment, number)
            except (Stopped, UserError):
                # So that a resumed run need not train this again.
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
        """Keeps what the search needs next, recomputes dropped snapshots that it requests, and drops the rest."""
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
        """Drop all others.

        The snapshot that a roll-out began from stays durable until the next roll-out begins to train, even if it is not
        needed: training lost in a crash is repeated from there, or from the ticks since that are durable, of which the
        nearest to what is needed stay too. (Scores at the roll-back point come before that, and may make a write
        unnecessary.) Under a limit they may have to be dropped; then what is kept becomes durable first.
        """
        segment, limited = self.search.ask(), self.retention.limit is not None
        if resumed or self._begins(segment) or (limited and not self.safe <= snapshots):
            self.store.persist(snapshots)
            self.safe = snapshots
            self.origin = frozenset() if segment is None else frozenset({self._origin(segment)})
        self.store.prune(snapshots, () if limited else self.origin | self._nearest_durable(snapshots, segment))

    def _nearest_durable(self, snapshots: frozenset[Snapshot], segment: Segment | None) -> frozenset[Snapshot]:
        """From which these and the next segment's parent would be trained again after a crash; none at the end."""
        if segment is None:
            return frozenset()
        durable = self.store.durable
        found, seen, open_ends = set[Snapshot](), {ROOT}, [*snapshots, segment.parent]
        while open_ends:
            if (at := open_ends.pop()) not in seen:
                seen.add(at)
                if at in durable:
                    found.add(at)
                else:
                    open_ends += self.history[at - 1][0].sources
        return frozenset(found)

    def _begins(self, segment: Segment | None) -> bool:
        """Whether the next segment is the first that its roll-out trains, or there is none."""
        trained = next((past.rollout for past, _ in reversed(self.history) if past.trains), None)
        return segment is None or (segment.trains and segment.rollout != trained)

    def _origin(self, segment: Segment) -> Snapshot:
        """The snapshot that the segment's roll-out began from."""
        while segment.parent != ROOT and (segment.start or segment.blend):
            before = self.history[segment.parent - 1][0]
            if before.rollout != segment.rollout:
                break
            segment = before
        return segment.parent

    def _recover(self) -> None:
        """Recompute missing snapshots that are to be kept, and what the next segment is made from."""
        segment, held = self.search.ask(), self.retention.held
        if segment is not None:
            held |= segment.sources - {ROOT}

        def sources(number: Snapshot) -> frozenset[Snapshot]:
            return self.history[number - 1][0].sources

        again = repeated(held, self.store.has, sources)
        for number, beside in zip(again, needed_beside(again, sources), strict=True):
            if self.retention.limit is not None:
                self.store.prune(held | beside)
            self._repeat(number, scored=True)
        files.stage("loop.settle")
        self._hold(held, resumed=True)

    def _repeat(self, number: int, *, scored: bool) -> None:
        """Run a journaled segment again. Raises Diverged if the outcome differs from the journaled one."""
        segment, recorded = self.history[number - 1]
        self.announce(number, segment)
        files.stage("recover.run")
        if not scored:
            segment = replace(segment, score=(), probes=frozenset())
        was, now = outcome_to_json(recorded), outcome_to_json(self.engine.run(segment, number))
        if not scored:
            was, now = ({key: outcome[key] for key in TRAINED} for outcome in (was, now))
            was["tokens"], now["tokens"] = was["tokens"]["train"], now["tokens"]["train"]
        if changed := differences(was, now) if self.exact else far(was, now):
            raise Diverged(f"segment {number}, run again,", changed)
        self.again(number)
