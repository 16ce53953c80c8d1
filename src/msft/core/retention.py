"""Which snapshots a bounded store keeps, and which it trains again when they are requested (design 3.9).

Without a limit, the store keeps every snapshot that the method may still request. With a limit, it drops the snapshot
that adds least to the expected recomputation: the sum over requestable snapshots of the odds of a request times the
steps from the nearest kept ancestors. So an ancestor that can no longer be requested may be worth keeping. The
ancestors of a snapshot are a graph, because a blend has several sources. All of them are kept while it is made, even
beyond the limit, and making it counts as one step.

All of this is a function of the journal: a resumed run keeps the same snapshots as an uninterrupted one, and a report
can state afterwards what was kept and what was trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msft.core.curves import peak
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot, Task

Limits: TypeAlias = Sequence[tuple[int, int | None]]
"""(first segment, maximum number of snapshots kept between segments from there on), in order; None: no maximum."""

UNBOUNDED: Limits = ((1, None),)

BLENDING = 1
"""The steps as which a blend counts: it reads and writes weights, and trains nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the store has to do between two segments."""

    first: frozenset[Snapshot]
    """Snapshots to keep at first; the others may be deleted at once."""
    again: tuple[tuple[Snapshot, frozenset[Snapshot]], ...]
    """Segments to train again, in order, each with the snapshots to keep while it runs."""
    held: frozenset[Snapshot]
    """Snapshots kept in the end."""


class Retention:
    """Decides after each segment of a search which snapshots to keep.

    The snapshot that was made last, or trained again last, need not be kept to continue from it: it is the current
    state of the engine. `window`: number of ticks in the mean that smooths the method's curves; the peaks, and so the
    odds of a request, depend on it.
    """

    def __init__(self, base: Outcome, limits: Limits = UNBOUNDED, window: int = 1) -> None:
        self.held: frozenset[Snapshot] = frozenset()
        self._limits, self._window = limits, window
        self._number = 0
        self._tip: Snapshot = ROOT
        """The current state of the engine."""
        self._new: frozenset[Snapshot] = frozenset()
        """The snapshot that the last segment stored; empty if it made none."""
        self._sources: dict[Snapshot, frozenset[Snapshot]] = {}
        self._steps: dict[Snapshot, int] = {}
        self._scores: dict[Snapshot, dict[Task, float]] = {ROOT: dict(base.scores)}
        self._rollout = 0
        self._points: list[Snapshot] = [ROOT]
        """The snapshots of the current roll-out: its start, then its ticks."""

    @property
    def limit(self) -> int | None:
        """Maximum number of snapshots kept between segments (one more while the next is made); None: no limit."""
        return [limit for since, limit in self._limits if since <= max(1, self._number)][-1]

    def made(self, segment: Segment, outcome: Outcome) -> None:
        """Record the next segment, which has ended."""
        self._number += 1
        if segment.rollout != self._rollout:
            self._rollout, self._points = segment.rollout, [segment.parent]
        if segment.makes:
            self._sources[self._number] = segment.sources
            self._steps[self._number] = segment.stop - segment.start if segment.trains else BLENDING
        if segment.trains:
            self._points.append(self._number)
        self._scores.setdefault(outcome.snapshot, {}).update(outcome.scores)
        self._tip = outcome.snapshot
        self._new = frozenset({self._number} if segment.makes else ())

    def settle(self, following: Segment | None, answer: Snapshot | None) -> Settled:
        """What to keep until the following segment ends; if none follows, keep the answer."""
        if following is None:
            assert answer is not None, "a search ends with an answer"
            asked, needed = frozenset({answer}) - {ROOT}, frozenset({answer}) - {ROOT}
        else:
            asked, needed = following.sources - {ROOT}, (following.sources | following.keep) - {ROOT}
        # The scores of other snapshots are never read again, and there may be thousands.
        of = needed | {ROOT, self._tip, *self._points}
        self._scores = {snapshot: scores for snapshot, scores in self._scores.items() if snapshot in of}
        there = self.held | self._new
        if needed <= there and (self.limit is None or len(needed) <= self.limit):
            self.held = needed
            return Settled(first=self.held, again=(), held=self.held)
        odds = self._odds(following, needed)
        # The engine is at the tip, kept or not, unless it may have to leave it to ask a teacher. Other sources, and the
        # answer (for export), must be in the store.
        stays = following is not None and following.teacher is None
        must = asked - {self._tip} if stays else asked
        if missing := self._repeated(must, there):
            # The engine leaves the tip to make them.
            must, missing = asked, self._repeated(asked, there)
        self.held = self._chosen(there | must, must, odds)
        beside = needed_beside(missing, self._sources.__getitem__)
        again = tuple((number, (self.held - set(missing[i:])) | beside[i]) for i, number in enumerate(missing))
        return Settled(first=again[0][1] if again else self.held, again=again, held=self.held)

    def _odds(self, following: Segment | None, needed: Iterable[Snapshot]) -> dict[Snapshot, float]:
        """The relative odds that each snapshot is requested, not normalised.

        In the current roll-out: 1, plus 1 for each active sub-dataset whose peak so far it is, halved for each earlier
        snapshot, because searches roll back to the first peaks. Snapshots of earlier roll-outs: 1.
        """
        odds = dict.fromkeys(needed, 1.0)
        if following is None:
            return odds
        for task in following.mixture.active:
            scored = [point for point in self._points if task in self._scores.get(point, {})]
            if scored:
                best = scored[peak([self._scores[point][task] for point in scored], self._window).tick]
                if best in odds:
                    odds[best] += 1
        for rank, snapshot in enumerate(sorted(odds.keys() & set(self._points))):
            odds[snapshot] *= 0.5**rank
        return odds

    def _chosen(
        self, there: frozenset[Snapshot], must: frozenset[Snapshot], odds: Mapping[Snapshot, float]
    ) -> frozenset[Snapshot]:
        """The snapshots of `there` to keep: none that saves no steps, and no more than the limit."""
        held = set(there)
        while spare := sorted(held - must):
            # Of two that save the same number of steps, drop the newer: the older is an ancestor of more snapshots.
            risk, least = min((self._risk(held - {snapshot}, odds), -snapshot) for snapshot in spare)
            if risk > self._risk(held, odds) and (self.limit is None or len(held) <= self.limit):
                break
            held.remove(-least)
        return frozenset(held)

    def _risk(self, held: set[Snapshot], odds: Mapping[Snapshot, float]) -> float:
        """The expected steps of recomputation: the sum of odds times the steps to train a snapshot again."""
        return sum(odd * sum(map(self._steps.__getitem__, self._repeated({s}, held))) for s, odd in odds.items())

    def _repeated(self, wanted: Iterable[Snapshot], held: set[Snapshot] | frozenset[Snapshot]) -> list[Snapshot]:
        """The segments to run again for some snapshots, in order, from their nearest kept ancestors."""
        return repeated(wanted, held.__contains__, self._sources.__getitem__)


def repeated(
    wanted: Iterable[Snapshot],
    has: Callable[[Snapshot], bool],
    sources: Callable[[Snapshot], Iterable[Snapshot]],
) -> list[Snapshot]:
    """The segments to run again so that the wanted snapshots exist, in order: those that are missing, and whatever is
    missing of what they are made from."""
    missing, open_ends = set[Snapshot](), list(wanted)
    while open_ends:
        snapshot = open_ends.pop()
        if snapshot != ROOT and snapshot not in missing and not has(snapshot):
            missing.add(snapshot)
            open_ends += sources(snapshot)
    return sorted(missing)  # a snapshot is made after its sources, so its number is higher


def needed_beside(
    again: Sequence[Snapshot], sources: Callable[[Snapshot], Iterable[Snapshot]]
) -> list[frozenset[Snapshot]]:
    """For each of the segments that run again, in order: the snapshots that must be kept while it runs, because it or
    a later one is made from them. Those that are made again count once they exist."""
    needed, found = frozenset[Snapshot](), []
    for number in reversed(again):
        needed = (needed - {number}) | (frozenset(sources(number)) - {ROOT})
        found.append(needed)
    return found[::-1]


def replayed(
    brief: Brief,
    history: Iterable[tuple[Segment, Outcome]],
    following: Segment | None,
    answer: Snapshot | None,
    limits: Limits = UNBOUNDED,
    window: int = 1,
) -> tuple[Retention, list[Settled]]:
    """The retention of a search after its history, and what was settled after each segment.

    `following`: the next segment of the search; None if it has ended with `answer`. If both are None, the last segment
    is not settled. `window`: `Outlook.window` of the method.
    """
    retention, done = Retention(brief.base, limits, window), []
    entries = list(history)
    for i, (segment, outcome) in enumerate(entries):
        retention.made(segment, outcome)
        after = entries[i + 1][0] if i + 1 < len(entries) else following
        if after is not None or (i + 1 == len(entries) and answer is not None):
            done.append(retention.settle(after, answer))
    return retention, done
