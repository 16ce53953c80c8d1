"""The quality of a run after so many FLOPs, on validation items that did not choose its model.

Half of each sub-dataset's items choose the best of the models evaluated so far, by search score; the other half values
it, in the test metric; and the other way round, over `HALVINGS` halvings. So the base model is shown, and never chosen.
A search's own decisions (who leaves, and when) read all items. Where a method takes its last model (`select: last`),
there is nothing to show before its end, and nothing chooses. Where it hands over models of its last run only, those of
the runs before are not shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from msft.core.headroom import FEWEST, Measured, halves, measured
from msft.core.vocabulary import ROOT, Outcome, Snapshot, Task
from msft.report.cost import ledger
from msft.report.story import Story
from msft.study.statistics import Array

HALVINGS = 10
"""Random halvings of the validation items, each used both ways."""
Curve: TypeAlias = Sequence[tuple[float, float]]
"""(FLOPs, quality), rising in FLOPs: each quality holds until the next."""


def held_out(story: Story, tasks: Sequence[Task]) -> Curve | None:
    """The curve of a finished run over these sub-datasets; None where an item is not known.

    Entry 0 is the base model, which is valued on all items, as nothing has been chosen. FLOPs are those of the search:
    the test is left out.
    """
    spent, found = ledger(story), _evaluated(story)
    if not found or any(size < FEWEST for size in story.brief.validation_sizes):
        return None
    seen = measured([outcome for _, outcome in found], story.tasks)
    if not all(math.isfinite(x) for task in tasks for row in seen.metrics[task].values for x in row):
        return None
    base = (float(spent[0]), fmean(story.brief.base.reports[task] for task in tasks))
    weights = story.brief.validation_sizes if story.brief.average == "micro" else None
    # [split, half, evaluation]; rounded, so that equal scores stay equal whatever the order of their sums.
    scores = np.array(list(_by_half(seen.scores, story.tasks, weights))).round(12)
    values = np.array(list(_by_half(seen.metrics, tasks, None)))
    if story.brief.select == "last":
        answer = None if story.answer is None else story.answer.snapshot
        last = [number for number, (_, outcome) in enumerate(found) if outcome.snapshot == answer]
        return [base, (float(spent[-1]), float(values[..., last[0]].mean()))] if last else None
    curve = [base]
    for now in range(len(found)):
        chosen = scores[..., : now + 1].argmax(2)  # the earliest of the best
        valued = np.take_along_axis(values[:, ::-1], chosen[..., None], 2)  # each half's choice, by the other half
        curve.append((float(spent[found[now][0]]), float(valued.mean())))
    return [*curve, (float(spent[-1]), curve[-1][1])]


def _evaluated(story: Story) -> list[tuple[int, Outcome]]:
    """Each snapshot that may be handed over and was scored on every sub-dataset, item by item, as (segment after which
    that was so, outcome)."""
    known: dict[Snapshot, dict[str, dict[Task, Any]]] = {}
    found, whole = list[tuple[int, Outcome]](), set(story.tasks)
    for number, (_, outcome) in enumerate(story.segments, start=1):
        if outcome.snapshot == ROOT or not outcome.scores:
            continue
        parts = known.setdefault(outcome.snapshot, {"scores": {}, "reports": {}, "items": {}, "metrics": {}})
        before = whole <= parts["items"].keys()
        for name, values in parts.items():
            values.update(getattr(outcome, name) or {})
        if not before and whole <= parts["items"].keys() and whole <= parts["metrics"].keys():
            merged = replace(outcome, scores=parts["scores"], reports=parts["reports"])
            found.append((number, replace(merged, items=parts["items"], metrics=parts["metrics"])))
    first = _last_run(story) if story.outlook.last_run_only else 1
    start = story.segments[first - 1][0].parent if story.segments else ROOT
    return [(max(number, first), each) for number, each in found if each.snapshot >= first or each.snapshot == start]


def _last_run(story: Story) -> int:
    """The first segment after the method last went back to an older snapshot to train from it."""
    first, tip = 1, ROOT
    for number, (segment, outcome) in enumerate(story.segments, start=1):
        if segment.trains:
            first = first if segment.start or segment.parent == tip else number
            tip = outcome.snapshot
    return first


def _by_half(
    measures: Mapping[Task, Measured], tasks: Sequence[Task], weights: Sequence[int] | None
) -> Iterator[list[Array]]:
    """For each split, the average over the sub-datasets at each evaluation, on the two halves of their items."""
    tables = {task: np.asarray(measures[task].values, float) for task in tasks}
    for split in range(HALVINGS):
        parts = {task: halves(table.shape[1], task, split) for task, table in tables.items()}
        yield [
            np.average(
                [_mean(table[:, parts[task][half]], measures[task]) for task, table in tables.items()], 0, weights
            )
            for half in (0, 1)
        ]


def _mean(values: Array, measure: Measured) -> Array:
    """The score at each evaluation; one that is not finite counts as 0, the least."""
    means = values.mean(1)
    found: Array = np.nan_to_num(np.exp(means) if measure.logs else means, nan=0.0, posinf=0.0, neginf=0.0)
    return found
