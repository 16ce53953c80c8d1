"""Compares the base model with the final model on every sub-dataset (design 5).

The comparison uses the test split. If there are no test scores (yet), it uses the validation split and says so: the
search acted on those scores, so they overestimate the final model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from msft.core.vocabulary import Outcome, Task
from msft.report.intervals import Change, Interval, of_average, of_change
from msft.report.story import Story
from msft.report.words import measure_label


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sub-dataset, or the macro-average. Scores are the reported metric, in [0, 1]."""

    label: str
    measure: str
    base: float | None
    answer: float | None
    items: int | None
    """Number of scored items; None if unknown."""
    change: Change | None
    """The difference between these two models with its intervals, paired over the items; None if they cannot be
    computed, or if both are the same model."""

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the difference."""
        return None if self.change is None else self.change.interval

    @property
    def difference(self) -> float | None:
        return None if self.base is None or self.answer is None else self.answer - self.base


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    split: Literal["test", "validation"]
    rows: Sequence[Row]
    macro: Row
    unit: str
    """What a row is of: a sub-dataset, or one of the data sets of a group."""
    left_out: Sequence[Task]
    """Sub-datasets without a score on this split."""
    refit: bool
    """Whether the scores are of the model that the search chose, not of the final model, which has none."""
    aggregate: Row | None
    """The aggregate on this split; None if there is none."""
    chosen_by: Row | None
    """The aggregate on its validation items, which chose the final model."""
    groups: Mapping[Task, Sequence[Task]]
    """The data sets of each group: one row each on the test split, and together one on the validation split."""


def compare(story: Story) -> Comparison:
    """Base model against final model on the test split, or on the validation split if there are no test scores."""
    base, answer = story.test.get("base"), story.test.get("answer")
    if base is not None and answer is not None and base.reports:
        rows = {task: _tested(story, task, base, answer) for task in story.entries if task in base.reports}
        name = story.aggregate
        aggregate = _tested(story, name, base, answer) if name is not None and name in base.reports else None
        return _comparison("test", story, rows, aggregate)
    counts = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    rows = {
        task: Row(
            label=task,
            measure=measure_label(story, task),
            base=story.base.reports.get(task),
            answer=story.best_known.reports.get(task),
            items=counts[task],
            change=None,
        )
        for task in story.tasks
    }
    return _comparison("validation", story, rows, _chosen_by(story))


def _comparison(
    split: Literal["test", "validation"], story: Story, rows: Mapping[Task, Row], aggregate: Row | None
) -> Comparison:
    every = list(rows.values())
    parts = [row.change for row in every if row.change is not None]
    macro = Row(
        label="average",
        measure="",
        base=mean([row.base for row in every]),
        answer=mean([row.answer for row in every]),
        items=sum(row.items or 0 for row in every) or None,
        change=of_average(parts) if parts and len(parts) == len(every) else None,
    )
    groups = {group: tuple(members) for group, members in story.groups.items()}
    names = story.entries if split == "test" else story.tasks
    return Comparison(
        split=split,
        rows=every,
        macro=macro,
        unit=story.unit(split),
        left_out=[name for name in names if name not in rows],
        refit=split == "validation" and story.refit,
        aggregate=aggregate,
        chosen_by=_chosen_by(story),
        groups=groups,
    )


def _chosen_by(story: Story) -> Row | None:
    """The aggregate on validation. A run on all rows holds its items out too, so that its final model has a score."""
    name = story.aggregate
    if name is None:
        return None
    measured = story.answer if story.answer is not None and name in story.answer.reports else story.best_known
    return Row(
        label=name,
        measure=measure_label(story, name),
        base=story.base.reports.get(name),
        answer=measured.reports.get(name),
        items=story.header.get("aggregate"),
        change=None,
    )


def _tested(story: Story, task: Task, base: Outcome, answer: Outcome) -> Row:
    was, now = (o.items.get(task) if o.items is not None else None for o in (base, answer))
    before, after = base.reports[task], answer.reports.get(task)
    apart = story.answer is not story.base
    return Row(
        label=task,
        measure=measure_label(story, task),
        base=before,
        answer=after,
        items=len(was) if was else None,
        change=of_change(was, now, before, after) if was and now and after is not None and apart else None,
    )


def mean(scores: Sequence[float | None]) -> float | None:
    """The macro-average; None if a score is missing or there is none."""
    known = [score for score in scores if score is not None]
    return fmean(known) if known and len(known) == len(scores) else None
