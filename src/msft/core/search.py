"""Ask and tell: a method at work, and its replay from a journal (design 2.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from msft.core.clock import Clock, Epochs
from msft.core.errors import Diverged, RunError, complaint
from msft.core.method import Method
from msft.core.outlook import Outlook, Standing
from msft.core.vocabulary import ROOT, Brief, Outcome, Plan, Probe, Segment, Snapshot


class Search:
    """One method on one job. Deterministic in (brief, outcomes): a journal of both is its whole state.

    `history` is replayed first; where the method asks for something else than what was recorded, `Diverged` names
    the fields that differ. A method gets a RunError where it asks for a snapshot that it did not keep, which would only
    be missing later, after the training; and where it changes what an epoch is made of before the epoch has ended,
    which would train some instances twice and leave others out.
    """

    def __init__(self, method: Method, brief: Brief, history: Iterable[tuple[Segment, Outcome]] = ()) -> None:
        self.brief = brief
        self.outlook: Outlook = method.outlook(brief, Standing.start(brief))
        self.number = 1
        """The number of the segment that `ask` returns, and of the snapshot that it makes."""
        self.answer: Snapshot | None = None
        """The snapshot that the method chose, once `ask` returns None."""
        self._plan: Plan = method.plan(brief)
        self._next: Segment | None = None
        self._held: set[Snapshot] = {ROOT}
        self._epochs = Epochs(Clock.of(brief))
        self._advance(None)
        for segment, outcome in history:
            self._check(segment)
            self.tell(outcome)

    def ask(self) -> Segment | None:
        """What to do next; the same until `tell` is called; None at the end."""
        return self._next

    def tell(self, outcome: Outcome) -> None:
        """What was measured in the segment that was asked for."""
        segment = self._next
        if segment is None:
            raise ValueError("the search has ended: there is no segment to tell an outcome of")
        complain_about(segment, outcome, self.number)
        self.number += 1
        self._advance(outcome)

    def _advance(self, outcome: Outcome | None) -> None:
        try:
            self._next = next(self._plan) if outcome is None else self._plan.send(outcome)
        except StopIteration as end:
            self._next, self.answer = None, end.value
        segment = self._next
        asked = {self.answer} if segment is None else segment.keep | {segment.parent}
        held = self._held if outcome is None else self._held | {outcome.snapshot}
        if lost := sorted(asked - held, key=repr):
            found = (
                f"the method asks for snapshot {lost[0]}, which it let go of"
                if lost[0] is not None
                else "it returned no answer"
            )
            mend = "name it in the `keep` of every segment until it is asked for, and return one as the answer"
            raise RunError(complaint(found, mend, field=f"segment {self.number}"))
        self._held = {ROOT, *asked}
        if segment is not None and (wrong := self._epochs.follow(segment)):
            mend = "change them where an epoch begins, or open a roll-out for it (`track.turn`)"
            raise RunError(complaint(f"the method {wrong}", mend, field=f"segment {self.number}"))

    def _check(self, recorded: Segment) -> None:
        asked = self._next
        if asked == recorded:
            return
        where = f"segment {self.number}"
        if asked is None:
            raise Diverged(where, ["the journal goes on where the search now ends"])
        raise Diverged(
            where,
            [
                f"{f.name} was {getattr(recorded, f.name)!r}, is now {getattr(asked, f.name)!r}"
                for f in fields(Segment)
                if getattr(recorded, f.name) != getattr(asked, f.name)
            ],
        )


def complain_about(segment: Segment, outcome: Outcome, number: int) -> None:
    """ValueError where an engine's outcome does not answer the segment."""
    snapshot = number if segment.trains else segment.parent
    if outcome.snapshot != snapshot:
        raise ValueError(f"the outcome must name snapshot {snapshot}, found {outcome.snapshot}")
    for measured in (outcome.scores, outcome.reports):
        if set(measured) != set(segment.score):
            raise ValueError(f"the outcome must score {sorted(segment.score)}, found {sorted(measured)}")
    for probe in Probe:
        if probe in segment.probes and getattr(outcome, probe.value) is None:
            raise ValueError(f"the outcome must answer the probe {probe.value}")
