"""From likelihoods to scores: what the search acts on (control) and what people read (report), DESIGN 3.11."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from msft.core.vocabulary import Task
from msft.data.examples import Item, Measure
from msft.scoring.forward import Runtime, SequenceScores, sequence_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """One sub-dataset's scores; higher is better, all in [0, 1] but the items of `exact_match` and `loss`."""

    control: float
    report: float
    items: tuple[float, ...]
    """The control score of each item: a log-probability for `exact_match` and `loss`."""
    reported: tuple[float, ...]
    """What each item adds to the report: right (1) or wrong (0); for `loss` its log-probability."""


def score(
    model: nn.Module,
    tasks: Mapping[Task, tuple[Sequence[Item], Measure]],
    runtime: Runtime,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[Task, TaskScores], int]:
    """The scores of each sub-dataset and the number of tokens that it took to find them.

    All sub-datasets share their micro-batches. `progress` is told (items done, all items). Raises
    NotFiniteError.
    """
    groups = [item.options for items, _ in tasks.values() for item in items]
    if not groups:
        return {}, 0
    told = None if progress is None else lambda done: progress(min(done, len(groups)), len(groups))
    found = sequence_scores(model, groups, runtime, progress=told)
    scores = {}
    first = 0
    for task, (items, measure) in tasks.items():
        last = first + sum(len(item.options) for item in items)
        scores[task] = task_scores(items, measure, found.part(first, last))
        first = last
    return scores, found.tokens


def task_scores(items: Sequence[Item], measure: Measure, sequences: SequenceScores) -> TaskScores:
    """The scores of one sub-dataset from those of its items' sequences, in order."""
    if measure.name == "choice":
        return _choice(items, measure, sequences)
    acted_on = reported = -sequences.mean
    control = report = float(np.exp(acted_on.mean()))
    if measure.name == "exact_match":
        reported = sequences.all_hit.astype(np.float64)
        report = float(reported.mean())
        if measure.control == "report":
            control, acted_on = report, reported
    return TaskScores(control=control, report=report, items=tuple(acted_on.tolist()), reported=tuple(reported.tolist()))


def _choice(items: Sequence[Item], measure: Measure, sequences: SequenceScores) -> TaskScores:
    soft, right = np.zeros(len(items)), np.zeros(len(items))
    first = 0
    for number, item in enumerate(items):
        part = slice(first, first + len(item.options))
        values = -sequences.nll[part]
        if measure.normalize == "token":
            values = values / sequences.targets[part]
        elif measure.normalize == "byte":
            values = values / np.maximum(np.array(item.option_bytes), 1)
        weights = np.exp(values - values.max())
        soft[number] = weights[item.answer] / weights.sum()
        right[number] = int(values.argmax()) == item.answer
        first = part.stop
    control = right if measure.control == "report" else soft
    return TaskScores(
        control=float(control.mean()),
        report=float(right.mean()),
        items=tuple(control.tolist()),
        reported=tuple(right.tolist()),
    )
