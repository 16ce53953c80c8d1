"""Compares the base model with the final model on every sub-dataset (design 5).

The comparison uses the test split. If there are no test scores (yet), it uses the validation split and says so: the
search acted on those scores, so they overestimate the final model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msft.core.vocabulary import Outcome, Task
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
    error: float | None
    """Standard error of the difference, paired over the items; None if it cannot be computed."""

    @property
    def difference(self) -> float | None:
        return None if self.base is None or self.answer is None else self.answer - self.base

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the difference between these two models, by normal approximation; within [-1, 1]."""
        if self.error is None or self.difference is None:
            return None
        return max(-1.0, self.difference - 1.96 * self.error), min(1.0, self.difference + 1.96 * self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    split: Literal["test", "validation"]
    rows: Sequence[Row]
    macro: Row
    left_out: Sequence[Task]
    """Sub-datasets without a score on this split."""


def compare(story: Story) -> Comparison:
    """Base model against final model on the test split, or on the validation split if there are no test scores."""
    base, answer = story.test.get("base"), story.test.get("answer")
    if base is not None and answer is not None and base.reports:
        rows = {task: _tested(story, task, base, answer) for task in story.tasks if task in base.reports}
        return _comparison("test", story, rows)
    counts = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    rows = {
        task: Row(
            label=task,
            measure=measure_label(story, task),
            base=story.base.reports.get(task),
            answer=story.best_known.reports.get(task),
            items=counts[task],
            error=None,
        )
        for task in story.tasks
    }
    return _comparison("validation", story, rows)


def _comparison(split: Literal["test", "validation"], story: Story, rows: Mapping[Task, Row]) -> Comparison:
    every = list(rows.values())
    errors = [row.error for row in every if row.error is not None]
    macro = Row(
        label="average",
        measure="",
        base=mean([row.base for row in every]),
        answer=mean([row.answer for row in every]),
        items=sum(row.items or 0 for row in every) or None,
        error=math.sqrt(sum(e * e for e in errors)) / len(every) if errors and len(errors) == len(every) else None,
    )
    return Comparison(split=split, rows=every, macro=macro, left_out=[task for task in story.tasks if task not in rows])


def _tested(story: Story, task: Task, base: Outcome, answer: Outcome) -> Row:
    was, now = (o.items.get(task) if o.items is not None else None for o in (base, answer))
    return Row(
        label=task,
        measure=measure_label(story, task),
        base=base.reports[task],
        answer=answer.reports.get(task),
        items=len(was) if was else None,
        error=paired_error(was, now, base.reports[task], answer.reports.get(task)) if was and now else None,
    )


def paired_error(was: Sequence[float], now: Sequence[float], base: float, answer: float | None) -> float | None:
    """Standard error of `answer - base` over paired items; None if the metric cannot be computed from these items.

    The metric is the mean of its items or, for log-likelihoods, the exponential of the mean (then by the delta method).
    """
    if answer is None or len(was) != len(now) or len(now) < 2:
        return None
    for slope_base, slope_answer, carried in ((1.0, 1.0, _mean), (base, answer, _exp_mean)):
        if math.isclose(carried(was), base, abs_tol=1e-6) and math.isclose(carried(now), answer, abs_tol=1e-6):
            gaps = [slope_answer * b - slope_base * a for a, b in zip(was, now, strict=True)]
            centre = _mean(gaps)
            variance = math.fsum((gap - centre) ** 2 for gap in gaps) / (len(gaps) - 1)
            return math.sqrt(variance / len(gaps))
    return None


def mean(scores: Sequence[float | None]) -> float | None:
    """The macro-average; None if a score is missing or there is none."""
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(scores) else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _exp_mean(values: Sequence[float]) -> float:
    centre = _mean(values)
    return math.exp(centre) if centre <= 0 else math.inf
