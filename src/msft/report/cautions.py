"""What a reader should be wary of: the run's own warnings, and what its numbers cannot carry."""

from __future__ import annotations

import math

from msft.report.base_and_answer import Comparison
from msft.report.story import Story
from msft.report.words import clean, difference, listed, percent

FEW_ITEMS = 60
"""Below this, plain argmax is worse than no search in the simulation of design 1.1."""
COUNTED = ("choice", "exact_match", "generate")
"""Measures whose report is a share of items, so that its standard error follows from their number."""


def cautions(story: Story, comparison: Comparison) -> list[str]:
    """Sentences, the gravest first; empty where there is nothing to say. Names in them are cleaned."""
    return [*_result(story, comparison), *_evidence(story), *map(clean, story.notes)]


def _result(story: Story, comparison: Comparison) -> list[str]:
    said = []
    answer, macro = story.answer, comparison.macro.interval
    if answer is None:
        said.append("The run is not finished: everything below is what is known so far.")
    elif answer.snapshot == story.base.snapshot:
        said.append("No trained point was better than the base model: the answer is the base model, untrained.")
    elif macro is not None and macro[0] <= 0:
        span = f"{difference(macro[0])} to {difference(macro[1])}"
        said.append(f"The {comparison.split} scores do not show the answer to be better than the base model ({span}).")
    worse = [row.label for row in comparison.rows if row.interval is not None and row.interval[1] < 0]
    if worse:
        said.append(f"Worse than the base model on the {comparison.split} split: {listed(worse)}.")
    points = story.trail.points.values()
    broken = [task for task in story.tasks if not all(math.isfinite(p.scores.get(task, 0.0)) for p in points)]
    if broken:
        said.append(f"Some scores are no numbers, the model diverged there: {listed(broken)}.")
    return said


def _evidence(story: Story) -> list[str]:
    said = []
    sizes = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    noted = {task for task in story.tasks for note in story.notes if note.startswith(f"{task}: {sizes[task]} valid")}
    few = [task for task, size in sizes.items() if size < FEW_ITEMS and task not in noted]
    if few:
        said.append(
            f"Fewer than {FEW_ITEMS} validation items, so that the peaks are read from noisy curves: {listed(few)}."
        )
    unlearnt = [task for task, size in sizes.items() if _not_learnable(story, task, size)]
    if unlearnt:
        said.append(
            "Validation never rose 3 standard errors above the base model, which is called not learnable here: "
            f"{listed(unlearnt)}."
        )
    rising = _rising(story)
    if rising:
        said.append(
            f"At its best where training ended, so that a longer horizon may pay: {listed(rising)} "
            f"({', '.join(percent(story.tip.scores[task]) for task in rising)})."
        )
    return said


def _not_learnable(story: Story, task: str, items: int) -> bool:
    if story.measure(task).get("name") not in COUNTED or items < 2 or story.answer is None:
        return False
    base = story.base.reports.get(task)
    reached = [p.reports[task] for p in story.trail.points.values() if task in p.reports]
    if base is None or not reached:
        return False
    # At 0 or 1 the plain formula would give no error at all.
    share = min(max(base, 1 / items), 1 - 1 / items)
    return max(reached) - base < 3 * math.sqrt(share * (1 - share) / items)


def _rising(story: Story) -> list[str]:
    """The active sub-datasets of a finished run's last roll-out whose curve ends at its best."""
    if story.answer is None or not story.rollouts:
        return []
    last = story.rollouts[-1]
    if last.excluded or last.rolled_back or story.answer.snapshot != last.end.snapshot:
        return []
    curves = {task: [p.scores[task] for p in last.points if task in p.scores] for task in last.active}
    return [task for task, curve in curves.items() if len(curve) > 2 and curve[-1] > max(curve[:-1])]
