"""Reads a journal as trajectories, roll-outs and decisions (design 2.1, 4).

The journal lists segments in the order in which they ran. `Story` derives from it, for a finished run or one that is
still running: the path to the final model, the training that was discarded, and the scores and the decision of each
roll-out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from msft.core.curves import average
from msft.core.outlook import Outlook
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Segment, Snapshot, Task, Tokens
from msft.core.wire import Json, outcome_from_json, today
from msft.methods import explanation_of, outlook_of
from msft.record.run_folder import RunFolder
from msft.report.rollouts import Rollout, find_rollouts
from msft.report.trail import Point, Trail, with_teachers

TOLD = (("config", "training.learning_rate"), ("environment",), ("msft",))
"""Where the keys of a header begin whose earlier values matter too, because results depend on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One run, read from its folder."""

    folder: RunFolder
    header: Json
    brief: Brief
    """`params` is a plain mapping here."""
    outlook: Outlook
    """Upper bounds on what its method does, known before it began."""
    segments: Sequence[tuple[Segment, Outcome]]
    trail: Trail
    rollouts: tuple[Rollout, ...]
    answer: Point | None
    """The point of the final model; None while the run is not finished."""
    refit_of: Point | None
    """The point that the search chose, and that a run on all rows followed (`method.refit`); None without one."""
    test: Mapping[str, Outcome]
    """`base` and `answer` (the final model) on the test split; empty if there is no test split, or no score yet."""
    changes: Sequence[Json]
    """Settings that were changed during the run, as the journal records them."""
    timings: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    """Warnings that the run gave when it began."""

    @property
    def config(self) -> Json:
        """The resolved configuration: dotted key to value, under the names that a configuration file uses today.

        What was changed when the run was resumed is in it. A learning rate that was changed after a part of the
        training is a text: `1e-05, from segment 7 on 5e-06`.
        """
        return today(self.with_changes.get("config", {}))

    @property
    def with_changes(self) -> Json:
        """The header, with what was changed when the run was resumed; see `TOLD`."""
        reached = len(self.segments) if self.answer else len(self.segments) + 1
        return _with_changes(self.header, [change for change in self.changes if change["since"] <= reached])

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.brief.tasks

    @property
    def aggregate(self) -> Task | None:
        """The name of the items that chose the final model, if it is not the average over sub-datasets."""
        return self.brief.aggregate

    @property
    def names(self) -> tuple[Task, ...]:
        """What has validation scores: the sub-datasets, and the aggregate last."""
        return self.brief.names

    @property
    def tested(self) -> tuple[Task, ...]:
        """What may have test scores: the data sets, and the aggregate last."""
        return (*self.entries, *([] if self.aggregate is None else [self.aggregate]))

    @property
    def groups(self) -> Mapping[Task, Mapping[Task, Mapping[str, int]]]:
        """Group -> data set -> numbers of its examples and items (`train`, `taken`, `validation`, `test`)."""
        said: Mapping[Task, Mapping[Task, Mapping[str, int]]] = self.header.get("groups", {})
        return said

    @property
    def entries(self) -> tuple[Task, ...]:
        """The data sets, each of which may have a test score: a group of `tasks` is several of them."""
        return tuple(name for task in self.tasks for name in self.groups.get(task, (task,)))

    def task_of(self, entry: Task) -> Task:
        """The sub-dataset of the search that a data set belongs to: its group, or itself."""
        return next((group for group, members in self.groups.items() if entry in members), entry)

    def unit(self, split: str) -> str:
        """What has a score of its own on a split: a group on validation, and each of its data sets on test."""
        return "data set" if split == "test" and self.groups else "sub-dataset"

    @property
    def base(self) -> Point:
        return self.trail.points[ROOT]

    @property
    def tip(self) -> Point:
        return self.trail.points[self.trail.tip]

    @property
    def chosen(self) -> Point | None:
        """The point that the search chose: the final model, unless a run on all rows followed; None while the search
        goes on."""
        return self.refit_of or self.answer

    @property
    def refit(self) -> bool:
        """Whether the final model is that of a run on all rows, which followed the search."""
        return self.refit_of is not None

    @property
    def held(self) -> tuple[int, ...]:
        """Training examples of the final model that the search held out, of each sub-dataset."""
        return self.brief.held if self.refit and self.brief.held is not None else (0,) * len(self.tasks)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Training examples that an epoch of the final model took, of each sub-dataset."""
        return self.brief.whole if self.refit and self.brief.whole is not None else self.brief.sizes

    @property
    def refit_snapshots(self) -> frozenset[Snapshot]:
        """Those of the run on all rows."""
        made = enumerate(self.segments, start=1)
        return frozenset(number for number, (segment, _) in made if segment.why == "refit" and segment.makes)

    @property
    def teachers(self) -> frozenset[Snapshot]:
        """Those of a first run, made to teach the final model."""
        made = enumerate(self.segments, start=1)
        return frozenset(number for number, (segment, _) in made if segment.why == "teacher" and segment.makes)

    @property
    def plain_first(self) -> Point | None:
        """Of a run in which plain fine-tuning teaches a second model: the point of it that would be its final model;
        None for any other run, and while nothing is taught."""
        if not self.teachers or not any(segment.teacher is not None for segment, _ in self.segments):
            return None
        points = self.trail.lineage(max(self.teachers))
        made = [self.segments[point.snapshot - 1][0] for point in points[1:]]
        plain = all(s.trains and s.anneal is None and s.mixture == Mixture(tasks=self.tasks) for s in made)
        if not plain or {point.snapshot for point in points[1:]} != self.teachers or len({s.rollout for s in made}) > 1:
            return None
        needed = set(self.tasks) if self.aggregate is None else {self.aggregate}
        scored = [point for point in points if point.scores.keys() >= needed]
        last = self.brief.select == "last"
        return None if points[-1] not in scored else points[-1] if last else max(scored, key=self.selects_by)

    def selects_by(self, point: Point) -> Fraction | float:
        """What the method compares where it selects the final model: the average over sub-datasets, or the aggregate's
        score."""
        if self.aggregate is not None:
            return average(point.scores, (self.aggregate,))
        weights = self.brief.validation_sizes if self.brief.average == "micro" else None
        return average(point.scores, self.tasks, weights)

    @property
    def selecting(self) -> str:
        """What `selects_by` compares, in words."""
        if self.aggregate is not None:
            return f"score of {self.aggregate}"
        return "average over all validation items" if self.brief.average == "micro" else "validation macro-average"

    @property
    def best_known(self) -> Point:
        """The point that the search chose, or, while there is none, its latest: what validation scores speak of."""
        return self.chosen or self.tip

    @property
    def trunk(self) -> list[Point]:
        """The path from the base model to the latest point of the search, which need not be the final model."""
        return self.trail.lineage(self.trail.tip)

    @property
    def tokens(self) -> Tokens:
        """All tokens that went through the model: base scores, every segment, the test."""
        # If the final model is the base model, it is tested once, not twice.
        tested = {outcome.snapshot: outcome.tokens for outcome in self.test.values()}
        counted = [self.brief.base.tokens, *(outcome.tokens for _, outcome in self.segments), *tested.values()]
        return sum(counted, start=Tokens())

    @property
    def explanations(self) -> list[str]:
        """What the method itself says about its decisions so far."""
        outcomes = [outcome for _, outcome in self.segments]
        return explanation_of(str(self.header.get("method", "")), self.brief, outcomes)

    def measure(self, task: Task) -> Mapping[str, str]:
        """How a sub-dataset is scored: `name` and, for a choice, `normalize`; empty if the header does not say."""
        said: Mapping[str, str] = self.header.get("measures", {}).get(task, {})
        return said


def read_story(folder: RunFolder) -> Story:
    """The story of a run folder; the run may be in progress. Raises RunError if the folder holds no readable run."""
    transcript = folder.transcript()
    brief = transcript.brief
    outlook = outlook_of(str(transcript.header.get("method", "")), brief)
    trail, segments = Trail(brief), with_teachers(transcript.segments)
    for number, (segment, outcome) in enumerate(segments, start=1):
        trail.add(number, segment, outcome)
    final = transcript.final or {}
    ended = next((segment.parent for segment, _ in segments if segment.why == "refit"), None)
    return Story(
        folder=folder,
        header=transcript.header,
        brief=brief,
        outlook=outlook,
        segments=segments,
        trail=trail,
        rollouts=tuple(find_rollouts(trail, segments, outlook)),
        answer=trail.points[final["answer"]] if final else None,
        refit_of=None if ended is None else trail.points[ended],
        test={which: outcome_from_json(body) for which, body in (final.get("test") or {}).items()},
        changes=transcript.changes,
        timings=[entry for entry in folder.read_timings() if isinstance(entry, dict)],
        notes=folder.read_notes(),
    )


def _with_changes(header: Json, changes: Sequence[Json]) -> Json:
    """The header with the last value of each key that was changed; of those in `TOLD`, with all that segments had."""
    if not changes:
        return header
    made, values = copy.deepcopy(header), dict[tuple[Any, ...], dict[int, Any]]()
    for change in changes:
        path, since = tuple(change["path"]), change["since"]
        # Of two values that begin with the same segment, the later one counts: no segment had the other.
        values.setdefault(path, {1: change["was"]})[since] = change["now"]
    for path, by_segment in values.items():
        place = made
        for key in path[:-1]:
            place = place[key]
        told = any(path[: len(start)] == start for start in TOLD)
        place[path[-1]] = _told(by_segment) if told else list(by_segment.values())[-1]
    return made


def _told(by_segment: Mapping[int, Any]) -> Any:
    """The one value, or a text with each and the segment from which on it applied."""
    (_, first), *later = by_segment.items()
    values = list(by_segment.values())
    others = [(since, now) for (since, now), before in zip(later, values, strict=False) if now != before]
    if not others:
        return first
    began = [] if first is None else [_text(first)]
    return ", ".join([*began, *(f"from segment {since} on {_text(value)}" for since, value in others)])


def _text(value: Any) -> str:
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
