"""Warnings for the reader: those of the run itself, and those about how far its numbers can be trusted."""

from __future__ import annotations

import math

from msft.report.base_and_answer import Comparison
from msft.report.story import Story
from msft.report.words import clean, difference, listed, percent

FEW_ITEMS = 60
"""With fewer items, plain argmax is worse than no search in the simulation of design 1.1."""
COUNTED = ("choice", "exact_match", "generate")
"""Measures that are a share of items, so that the standard error follows from the number of items."""


def cautions(story: Story, comparison: Comparison) -> list[str]:
    """The warnings, most serious first; may be empty. Names in them are cleaned."""
    return [*_result(story, comparison), *_evidence(story), *map(clean, story.notes)]


def _result(story: Story, comparison: Comparison) -> list[str]:
    said = []
    answer, macro = story.answer, comparison.macro.interval
    if answer is None:
        said.append("The run is not finished: everything below is preliminary.")
    elif answer.snapshot == story.base.snapshot:
        said.append("No trained point was better than the base model, so the final model is the untrained base model.")
    elif macro is not None and macro[0] <= 0:
        span = f"{difference(macro[0])} to {difference(macro[1])}"
        said.append(
            f"The {comparison.split} scores do not show that the final model is better than the base model ({span})."
        )
    worse = [row.label for row in comparison.rows if row.interval is not None and row.interval[1] < 0]
    if worse:
        said.append(f"Worse than the base model on the {comparison.split} split: {listed(worse)}.")
    points = story.trail.points.values()
    broken = [task for task in story.tasks if not all(math.isfinite(p.scores.get(task, 0.0)) for p in points)]
    if broken:
        said.append(f"Some scores are NaN or infinite because the model diverged: {listed(broken)}.")
    return said


def _evidence(story: Story) -> list[str]:
    said = []
    sizes = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    noted = {task for task in story.tasks for note in story.notes if note.startswith(f"{task}: {sizes[task]} valid")}
    few = [task for task, size in sizes.items() if size < FEW_ITEMS and task not in noted]
    if few:
        said.append(
            f"Fewer than {FEW_ITEMS} validation items, so the curves are too noisy to find peaks: {listed(few)}."
        )
    unlearnt = [task for task, size in sizes.items() if _not_learnable(story, task, size)]
    if unlearnt:
        said.append(
            "No clear improvement on validation (less than 3 standard errors above the base model): "
            f"{listed(unlearnt)}."
        )
    rising = _rising(story)
    if rising:
        said.append(
            f"Best score at the end of training, so a higher `max_epochs` may help: {listed(rising)} "
            f"({', '.join(percent(story.best_known.scores[task]) for task in rising)})."
        )
    return said


def _not_learnable(story: Story, task: str, items: int) -> bool:
    if story.measure(task).get("name") not in COUNTED or items < 2 or story.answer is None:
        return False
    base = story.base.reports.get(task)
    reached = [p.reports[task] for p in story.trail.points.values() if task in p.reports]
    if base is None or not reached:
        return False
    # At 0 or 1 the plain formula would give a standard error of 0.
    share = min(max(base, 1 / items), 1 - 1 / items)
    return max(reached) - base < 3 * math.sqrt(share * (1 - share) / items)


def _rising(story: Story) -> list[str]:
    """The active sub-datasets of a finished run's last roll-out whose curve has its maximum at the end."""
    if story.answer is None or not story.rollouts:
        return []
    last = story.rollouts[-1]
    if last.excluded or last.rolled_back or story.answer.snapshot != last.end.snapshot:
        return []
    curves = {task: [p.scores[task] for p in last.points if task in p.scores] for task in last.active}
    return [task for task, curve in curves.items() if len(curve) > 2 and curve[-1] > max(curve[:-1])]
