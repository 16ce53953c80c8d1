"""Which snapshots a bounded store keeps, and which it trains again when they are requested (design 3.9).

Without a limit, the store keeps every snapshot that the method may still request. With a limit, it drops the snapshot
that adds least to the expected recomputation: the sum over requestable snapshots of the odds of a request times the
steps from the nearest kept ancestor. So an ancestor that can no longer be requested may be worth keeping.

All of this is a function of the journal: a resumed run keeps the same snapshots as an uninterrupted one, and a report
can state afterwards what was kept and what was trained again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msft.core.curves import peak
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot, Task

Limits: TypeAlias = Sequence[tuple[int, int | None]]
"""(first segment, maximum number of snapshots kept between segments from there on), in order; None: no maximum."""

UNBOUNDED: Limits = ((1, None),)


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
        """The snapshot that the last segment stored; empty if it trained nothing."""
        self._parents: dict[Snapshot, Snapshot] = {}
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
        if segment.trains:
            self._parents[self._number], self._steps[self._number] = segment.parent, segment.stop - segment.start
            self._points.append(self._number)
        self._scores.setdefault(outcome.snapshot, {}).update(outcome.scores)
        self._tip = outcome.snapshot
        self._new = frozenset({self._number} if segment.trains else ())

    def settle(self, following: Segment | None, answer: Snapshot | None) -> Settled:
        """What to keep until the following segment ends; if none follows, keep the answer."""
        if following is None:
            assert answer is not None, "a search ends with an answer"
            asked, needed = answer, {answer} - {ROOT}
        else:
            asked, needed = following.parent, ({following.parent} | following.keep) - {ROOT}
        # The scores of other snapshots are never read again, and there may be thousands.
        of = needed | {ROOT, self._tip, *self._points}
        self._scores = {snapshot: scores for snapshot, scores in self._scores.items() if snapshot in of}
        there = self.held | self._new
        if needed <= there and (self.limit is None or len(needed) <= self.limit):
            self.held = frozenset(needed)
            return Settled(first=self.held, again=(), held=self.held)
        odds = self._odds(following, needed)
        # The engine is at the tip, kept or not. Any other parent, and the answer (for export), must be in the store.
        stands = asked == self._tip and following is not None
        must, lineage = (set(), []) if stands else ({asked} - {ROOT}, self._lineage(asked, there))
        self.held = self._chosen(there | must, must, odds)
        others = self.held - must
        again, beside = [], self._parents[lineage[0]] if lineage else ROOT
        for number in lineage:
            again.append((number, frozenset((others | {beside}) - {ROOT})))
            beside = number
        return Settled(first=again[0][1] if again else self.held, again=tuple(again), held=self.held)

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
        self, there: set[Snapshot] | frozenset[Snapshot], must: set[Snapshot], odds: Mapping[Snapshot, float]
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
        return sum(odd * sum(map(self._steps.__getitem__, self._lineage(s, held))) for s, odd in odds.items())

    def _lineage(self, snapshot: Snapshot, held: set[Snapshot] | frozenset[Snapshot]) -> list[Snapshot]:
        """The segments to train again for a snapshot, in order, from its nearest kept ancestor; empty if it is kept."""
        path = []
        while snapshot != ROOT and snapshot not in held:
            path.append(snapshot)
            snapshot = self._parents[snapshot]
        return path[::-1]


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
