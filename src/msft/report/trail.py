"""The points that a run has reached, and how each was made from others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from msft.core.clock import Clock
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Segment, Snapshot, Task, Why

BRANCHES: tuple[Why, ...] = ("candidate", "teacher", "refit")
"""What a segment is for that is no part of the search: nothing is decided after it, and nothing is rolled back."""
ASIDE: tuple[Why, ...] = ("candidate", "refit")
"""What a segment is for after which the search is where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A snapshot on a trajectory, with every score measured at it."""

    snapshot: Snapshot
    parent: Snapshot
    made_of: frozenset[Snapshot]
    """The snapshots whose weights it was made from: its parent, and the parts of a blend."""
    rollout: int
    """The roll-out that made it; 0 for the base model."""
    epoch: float
    """Its position, in epochs along the trajectory that leads to it."""
    step: int
    """Optimizer steps since its roll-out began."""
    mixture: Mixture | None
    """The mixture of the segment that made it; None for the base model."""
    scores: Mapping[Task, float]
    """Search scores on the validation split."""
    reports: Mapping[Task, float]


class Trail:
    """All points that a run has reached. Grows by one segment at a time, so it can follow a run in progress."""

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.clock = Clock.of(brief)
        base = brief.base
        self.points: dict[Snapshot, Point] = {
            ROOT: Point(
                snapshot=ROOT, parent=ROOT, made_of=frozenset(), rollout=0, epoch=0.0, step=0, mixture=None,
                scores=dict(base.scores), reports=dict(base.reports),
            )
        }  # fmt: skip
        self.tip: Snapshot = ROOT
        """The latest point of the search; neither a candidate nor the run on all rows moves it."""

    def add(self, number: int, segment: Segment, outcome: Outcome) -> Point:
        """The point at the end of segment `number`; one that makes no snapshot only adds scores to its parent."""
        known = self.points[segment.parent] if not segment.makes else None
        here = number if segment.makes else segment.parent
        if segment.why not in ASIDE:
            self.tip = here
        self.points[here] = Point(
            snapshot=here,
            parent=known.parent if known else segment.parent,
            made_of=known.made_of if known else segment.made_of,
            rollout=known.rollout if known else segment.rollout,
            epoch=known.epoch if known else self.end(segment),
            step=known.step if known else segment.stop,
            mixture=known.mixture if known else segment.mixture,
            scores={**(known.scores if known else {}), **outcome.scores},
            reports={**(known.reports if known else {}), **outcome.reports},
        )
        return self.points[here]

    def goes_back(self, segment: Segment) -> bool:
        """Whether the search returns to an older point with the next segment: a roll-back. A candidate, a teacher or
        what it teaches does not, a blend of older points does not, and the run on all rows is no part of the search."""
        beside = segment.why in BRANCHES or segment.blend or segment.teacher is not None
        if beside or segment.parent == self.tip:
            return False
        return segment.parent in {point.snapshot for point in self.lineage(self.tip)}

    def end(self, segment: Segment) -> float:
        """The position of a segment's end, in epochs."""
        if not segment.trains:
            return segment.epoch
        return segment.epoch + self.clock.epochs(segment.mixture, segment.stop - segment.start)

    def lineage(self, snapshot: Snapshot) -> list[Point]:
        """The path from the base model to a snapshot, both included."""
        path = [self.points[snapshot]]
        while path[-1].snapshot != ROOT:
            path.append(self.points[path[-1].parent])
        return path[::-1]

    def ancestors(self, snapshots: Iterable[Snapshot]) -> set[Snapshot]:
        """These snapshots, and everything that they were made from."""
        found, open_ends = set[Snapshot](), list(snapshots)
        while open_ends:
            if (snapshot := open_ends.pop()) not in found:
                found.add(snapshot)
                open_ends += self.points[snapshot].made_of
        return found


def with_teachers(segments: Sequence[tuple[Segment, Outcome]]) -> list[tuple[Segment, Outcome]]:
    """The segments of a run, where a roll-out whose models teach a later one is called a teacher: a method may find out
    at its end that it is one."""
    teach = {snapshot for segment, _ in segments if segment.teacher for snapshot in segment.teacher.snapshots} - {ROOT}
    rollouts = {segments[snapshot - 1][0].rollout for snapshot in teach}

    def labelled(segment: Segment) -> Segment:
        first = segment.rollout in rollouts and segment.why == "search"
        return replace(segment, why="teacher") if first else segment

    return [(labelled(segment), outcome) for segment, outcome in segments]
