"""Which snapshots a bounded store holds, and which it trains again when they are asked for (design 3.9).

Without a bound the store holds what the method may still ask for. With one it lets go of what the search can best do
without: every snapshot that may be asked for has odds, training it again takes the steps from its nearest ancestor
that is held, and what is dropped is what adds least to the expected steps. An ancestor that nobody may ask for any
more can so be worth more than a snapshot that somebody may.

All of it is a function of the journal: a resumed run holds what the uninterrupted one would, and a report can tell
afterwards what was held and what was trained again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msft.core.curves import peak
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot, Task

Limits: TypeAlias = Sequence[tuple[int, int | None]]
"""(first segment, snapshots held between segments from there on), in order; None: all that may be asked for."""

UNBOUNDED: Limits = ((1, None),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What is to be done between two segments."""

    first: frozenset[Snapshot]
    """What stays; the rest may go at once."""
    again: tuple[tuple[Snapshot, frozenset[Snapshot]], ...]
    """Segments to train again, in order, and what is held beside each while it runs."""
    held: frozenset[Snapshot]
    """What is held in the end."""


class Retention:
    """Follows a search from segment to segment.

    The snapshot that was made last, or trained again last, needs not be held to go on from: the engine stands there.
    `window`: ticks in the mean under which the method reads peaks; it decides how likely a snapshot is asked for.
    """

    def __init__(self, base: Outcome, limits: Limits = UNBOUNDED, window: int = 1) -> None:
        self.held: frozenset[Snapshot] = frozenset()
        self._limits, self._window = limits, window
        self._number = 0
        self._tip: Snapshot = ROOT
        """Where the engine stands."""
        self._new: frozenset[Snapshot] = frozenset()
        """What the last segment put into the store, if it trained."""
        self._parents: dict[Snapshot, Snapshot] = {}
        self._steps: dict[Snapshot, int] = {}
        self._scores: dict[Snapshot, dict[Task, float]] = {ROOT: dict(base.scores)}
        self._rollout = 0
        self._points: list[Snapshot] = [ROOT]
        """Of the roll-out that is on: its start, then its ticks."""

    @property
    def limit(self) -> int | None:
        """Snapshots held between segments at most; one more while a segment runs into its end."""
        return [limit for since, limit in self._limits if since <= max(1, self._number)][-1]

    def made(self, segment: Segment, outcome: Outcome) -> None:
        """The next segment has ended."""
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
        """What to hold until the following segment ends; where none follows, the answer."""
        if following is None:
            assert answer is not None, "a search ends with an answer"
            asked, needed = answer, {answer} - {ROOT}
        else:
            asked, needed = following.parent, ({following.parent} | following.keep) - {ROOT}
        # Nobody asks for any other snapshot's scores again, and there may be thousands.
        of = needed | {ROOT, self._tip, *self._points}
        self._scores = {snapshot: scores for snapshot, scores in self._scores.items() if snapshot in of}
        there = self.held | self._new
        if needed <= there and (self.limit is None or len(needed) <= self.limit):
            self.held = frozenset(needed)
            return Settled(first=self.held, again=(), held=self.held)
        odds = self._odds(following, needed)
        # The engine stands at the tip, held or not; elsewhere it must be able to go, and the answer is handed over.
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
        """How likely each is asked for, in no unit.

        In the roll-out that is on: one, and one for each active sub-dataset whose peak it is so far; halved for each
        earlier one, because searches go back to the first peaks. Those from before: one.
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
        """What stays of what is there: nothing useless, and no more than the limit."""
        held = set(there)
        while spare := sorted(held - must):
            # Where two are worth the same, the newer one goes: its ancestors shorten the way to more.
            risk, least = min((self._risk(held - {snapshot}, odds), -snapshot) for snapshot in spare)
            if risk > self._risk(held, odds) and (self.limit is None or len(held) <= self.limit):
                break
            held.remove(-least)
        return frozenset(held)

    def _risk(self, held: set[Snapshot], odds: Mapping[Snapshot, float]) -> float:
        """The steps to be expected, by the odds."""
        return sum(odd * sum(map(self._steps.__getitem__, self._lineage(s, held))) for s, odd in odds.items())

    def _lineage(self, snapshot: Snapshot, held: set[Snapshot] | frozenset[Snapshot]) -> list[Snapshot]:
        """What has to be trained for a snapshot, its nearest held ancestor's child first; nothing if it is held."""
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
    """The retention of a search after its history, and what was done after each segment.

    `following`: what the search asks for next; None where it has ended with this answer. While neither is known, the
    last segment is left unsettled. `window`: the method's (`Outlook.window`).
    """
    retention, done = Retention(brief.base, limits, window), []
    entries = list(history)
    for i, (segment, outcome) in enumerate(entries):
        retention.made(segment, outcome)
        after = entries[i + 1][0] if i + 1 < len(entries) else following
        if after is not None or (i + 1 == len(entries) and answer is not None):
            done.append(retention.settle(after, answer))
    return retention, done
