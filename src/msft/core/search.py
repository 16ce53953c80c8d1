"""Ask-and-tell interface to a running method, and its replay from a journal (design 2.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from msft.core.clock import Clock, Epochs
from msft.core.errors import Diverged, RunError, complaint
from msft.core.method import Method
from msft.core.outlook import Outlook
from msft.core.segment_checks import wrong_with
from msft.core.vocabulary import ROOT, Brief, Outcome, Plan, Probe, Segment, Snapshot, Teacher


class Search:
    """One method on one job. Deterministic in (brief, outcomes): a journal of both is its whole state.

    `history` is replayed first. Raises Diverged, naming the fields that differ, if the method requests a segment other
    than the recorded one. Raises RunError if the method requests a snapshot that it did not keep (before the training
    that would need it), if it changes the content of an epoch before the epoch has ended (this would train some
    instances twice and others not at all), if it requests what cannot be run (`core/segment_checks.py`), or if it
    scores a model that was trained on held-out instances (`Mixture.whole`).
    """

    def __init__(self, method: Method, brief: Brief, history: Iterable[tuple[Segment, Outcome]] = ()) -> None:
        self.brief = brief
        self.outlook: Outlook = method.outlook_at(brief)
        self.number = 1
        """The number of the segment that `ask` returns, and of the snapshot that it makes."""
        self.answer: Snapshot | None = None
        """The snapshot that the method chose, once `ask` returns None."""
        self._plan: Plan = method.plan_of(brief)
        self._next: Segment | None = None
        self._held: set[Snapshot] = {ROOT}
        self._whole: set[Snapshot] = set()
        """The snapshots that were trained on held-out instances."""
        self._end: tuple[Snapshot, int] = (ROOT, 0)
        """Where the last training ended, and the step of its roll-out there."""
        self._teacher: Teacher | None = None
        """The teacher of the last training."""
        self._clock = Clock.of(brief)
        self._epochs = Epochs(self._clock)
        self._advance(None)
        for segment, outcome in history:
            self._check(segment)
            self.tell(outcome)

    def ask(self) -> Segment | None:
        """The next segment, the same until `tell` is called; None at the end."""
        return self._next

    def tell(self, outcome: Outcome) -> None:
        """Pass on the outcome of the segment that `ask` returned. Raises ValueError if it does not fit the segment."""
        segment = self._next
        if segment is None:
            raise ValueError("the search has ended: no segment needs an outcome")
        complain_about(segment, outcome, self.number)
        if self._knows_held_out(segment):
            self._whole.add(outcome.snapshot)
        if not segment.blend:
            self._end = (outcome.snapshot, segment.stop)
            self._teacher = segment.teacher
        self.number += 1
        self._advance(outcome)

    def _advance(self, outcome: Outcome | None) -> None:
        try:
            self._next = next(self._plan) if outcome is None else self._plan.send(outcome)
        except StopIteration as end:
            self._next, self.answer = None, end.value
        segment = self._next
        asked = {self.answer} if segment is None else segment.keep | segment.sources
        held = self._held if outcome is None else self._held | {outcome.snapshot}
        if lost := sorted(asked - held, key=repr):
            found = (
                f"the method requests snapshot {lost[0]}, which it dropped"
                if lost[0] is not None
                else "the method returned no snapshot"
            )
            fix = "list it in the `keep` of every segment until it is requested, and return a snapshot at the end"
            raise RunError(complaint(found, fix, field=f"segment {self.number}"))
        self._held = {ROOT, *asked}
        if segment is None:
            return
        if segment.mixture.whole and self.brief.whole is None:
            fix = "leave `whole` False: only `method.refit` trains on all rows"
            raise RunError(complaint("nothing is held out", fix, field=f"segment {self.number}"))
        if set(segment.score) - {self.brief.aggregate} and self._knows_held_out(segment):
            found, fix = "the method scores a model on items that it was trained on", "score it before, or nowhere"
            raise RunError(complaint(found, fix, field=f"segment {self.number}"))
        if (wrong := wrong_with(segment, self.brief.horizon, self._clock)) is not None:
            raise RunError(complaint(*wrong, field=f"segment {self.number}"))
        if segment.start and (segment.parent, segment.start) != self._end:
            found = (
                f"the method continues a roll-out at step {segment.start} from snapshot {segment.parent}, and the last "
                f"training ended at step {self._end[1]} in snapshot {self._end[0]}"
            )
            raise RunError(complaint(found, "begin a roll-out there: `start=0`", field=f"segment {self.number}"))
        if segment.start and segment.trains and segment.teacher != self._teacher:
            fix = "give the same teacher from the beginning of a roll-out to its end, or begin a roll-out (`start=0`)"
            raise RunError(
                complaint("the method changes the teacher within a roll-out", fix, field=f"segment {self.number}")
            )
        if changes := self._epochs.follow(segment):
            fix = "change the mixture where an epoch begins, or begin a roll-out for it (`track.turn`)"
            raise RunError(complaint(f"the method {changes}", fix, field=f"segment {self.number}"))

    def _knows_held_out(self, segment: Segment) -> bool:
        """Whether the model at the end of a segment was trained on what is held out for validation."""
        return (segment.trains and segment.mixture.whole) or bool(segment.sources & self._whole)

    def _check(self, recorded: Segment) -> None:
        asked = self._next
        if asked == recorded:
            return
        where = f"segment {self.number}"
        if asked is None:
            raise Diverged(where, ["the journal continues where the search now ends"])
        raise Diverged(
            where,
            [
                f"{f.name} was {getattr(recorded, f.name)!r}, is now {getattr(asked, f.name)!r}"
                for f in fields(Segment)
                if getattr(recorded, f.name) != getattr(asked, f.name)
            ],
        )


def complain_about(segment: Segment, outcome: Outcome, number: int) -> None:
    """Raises ValueError if an engine's outcome does not fit the segment."""
    snapshot = number if segment.makes else segment.parent
    if outcome.snapshot != snapshot:
        raise ValueError(f"the outcome must name snapshot {snapshot}, found {outcome.snapshot}")
    for measured in (outcome.scores, outcome.reports):
        if set(measured) != set(segment.score):
            raise ValueError(f"the outcome must score {sorted(segment.score)}, found {sorted(measured)}")
    for probe in Probe:
        if probe in segment.probes and getattr(outcome, probe.value) is None:
            raise ValueError(f"the outcome must answer the probe {probe.value}")
    if outcome.loss is not None and set(outcome.loss) != set(segment.score):
        raise ValueError(f"the outcome must have the loss of {sorted(segment.score)}, found {sorted(outcome.loss)}")
