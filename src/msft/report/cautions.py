"""Warnings for the reader of a run's numbers, the gravest first. Each fact has its threshold here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from msft.core.vocabulary import Task
from msft.report.base_and_answer import Comparison
from msft.report.story import Story
from msft.report.trail import Point
from msft.report.words import MOST_NAMES, clean, listed, percent, those

FEW_ITEMS = 60
"""With fewer validation items, plain argmax is worse than no search in the simulation of design 1.1."""
ENOUGH_ITEMS = 150
"""With so many, the peaks of that simulation are found."""
CLEAR = 3.0
"""Standard errors by which a score must rise to be a clear improvement."""
ROSE, BY = 2.0, 0.5
"""A training loss that is more than so many times that of the beginning, and so many nats above it, with worse scores,
is that of a model that diverged."""
LOST = 0.5
"""Scores that fell by more than this share of what was gained since the roll-out began are worse."""
GUESS = 13.0
"""Nats: a model that guesses evenly has the logarithm of the size of its vocabulary, 12.9 for 400,000 tokens."""
COUNTED = ("choice", "exact_match", "generate")
"""Measures that are a share of items, so that the standard error follows from the number of items."""


def cautions(story: Story, comparison: Comparison, *, with_notes: bool = True) -> list[str]:
    """The warnings; may be empty. Names in them are cleaned. `with_notes`: also those that the run gave as it began."""
    sizes = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    early, notes = (few_items(sizes), _notes(story, sizes)) if with_notes else ([], [])
    return [*_result(story, comparison), *early, *_training(story, sizes), *notes]


def few_items(sizes: Mapping[Task, int]) -> list[str]:
    """One sentence about all sub-datasets with too few validation items (`sizes`), if there are any."""
    few = sorted((size, i, task) for i, (task, size) in enumerate(sizes.items()) if size < FEW_ITEMS)
    if not few:
        return []
    groups = [(size, [task for *_, task in same]) for size, same in groupby(few, key=lambda entry: entry[0])]
    counted = "; ".join(f"{size} in {those(tasks, len(sizes))}" for size, tasks in groups)
    least = few[0][0]
    points = 100 * math.sqrt(0.25 / least) if least else math.inf
    return [
        f"Too few validation items to find peaks reliably: {counted}. With {least}, an accuracy is uncertain by "
        f"±{points:.0f} points (standard error). Use {ENOUGH_ITEMS} or more."
    ]


def learnable(base: float, best: float, items: int) -> bool:
    """Whether the best validation metric is more than 3 standard errors above the base model's.

    The standard error is that of a difference of two shares of `items`, an upper bound for scores in [0, 1].
    """
    error = math.sqrt((base * (1 - base) + best * (1 - best)) / items) if items else math.inf
    return bool(best - base > CLEAR * error)


def _result(story: Story, comparison: Comparison) -> list[str]:
    said = []
    points = story.trail.points.values()
    broken = [task for task in story.tasks if not all(math.isfinite(p.scores.get(task, 0.0)) for p in points)]
    if broken:
        said.append(f"Some scores are NaN or infinite because the model diverged: {listed(broken)}.")
    if diverged := _divergence(story):
        rate = story.config.get("training.learning_rate")
        said.append(
            f"Training diverged: its loss {diverged}. Lower training.learning_rate"
            f"{'' if rate is None else f', which is {rate}' if isinstance(rate, str) else f', which is {rate:g}'}."
        )
    if story.answer is None:
        said.append("The run is not finished: all of this is preliminary.")
    worse = [row.label for row in comparison.rows if row.interval is not None and row.interval[1] < 0]
    if worse:
        which = those(worse, len(comparison.rows), comparison.unit)
        said.append(f"Worse than the base model on the {comparison.split} split: {which}.")
    return said


def _divergence(story: Story) -> str:
    """What the training loss of the last roll-out did, if it diverged: it rose far and the scores fell, or it is above
    that of a guess and no scores were better than the base model's. Else empty.

    Where the mixture changed, its loss did too: losses are compared only where it is the last one.
    """
    searched = [rollout for rollout in story.rollouts if rollout.why != "refit"]
    if not searched:
        return ""
    points = searched[-1].points
    made = [story.segments[point.snapshot - 1] for point in points[1:]]
    same = [outcome for segment, outcome in made if segment.mixture == made[-1][0].mixture]
    losses = [outcome.train_loss for outcome in same if outcome.train_loss is not None]
    if not losses:
        return ""
    first, last = losses[0], losses[-1]
    if last > max(ROSE * first, first + BY) and _is_lost(story, points):
        return f"rose from {first:.3g} to {last:.3g} in the last roll-out"
    gained = any(_change(story, story.base, point) > 0 for point in story.trail.points.values())
    return f"is {last:.3g} at the end, above that of a guess" if last > GUESS and not gained else ""


def _is_lost(story: Story, points: Sequence[Point]) -> bool:
    """Whether the last of these points is clearly below the best of them."""
    gained = max(_change(story, points[0], point) for point in points)
    return max(_change(story, points[-1], point) for point in points) > LOST * gained


def _change(story: Story, before: Point, after: Point) -> float:
    """By how much the mean search score of the sub-datasets that have one at both points changed; 0 if none has."""
    both = [task for task in story.tasks if task in before.scores and task in after.scores]
    return math.fsum(after.scores[task] - before.scores[task] for task in both) / max(1, len(both))


def _training(story: Story, sizes: Mapping[Task, int]) -> list[str]:
    said = []
    unlearnt = [task for task, size in sizes.items() if _not_learnable(story, task, size)]
    if unlearnt:
        said.append(
            "No clear improvement of the test metric on validation items (less than "
            f"{CLEAR:g} standard errors above the base model): "
            f"{those(unlearnt, len(story.tasks))}."
        )
    rising = _rising(story)
    if rising:
        scores = ", ".join(percent(story.best_known.scores[task]) for task in rising)
        said.append(
            "Best score at the end of training, so a new run with a higher method.max_epochs may help: "
            f"{those(rising, len(story.tasks))}{f' ({scores})' if len(rising) <= MOST_NAMES else ''}."
        )
    return said


def _notes(story: Story, sizes: Mapping[Task, int]) -> list[str]:
    """What the run said as it began: equal notes on several sub-datasets in one line."""
    tasks_of: dict[str, list[Task]] = {}
    for note in story.notes:
        task = max((task for task in story.tasks if note.startswith(f"{task}: ")), key=len, default="")
        text = note.removeprefix(f"{task}: ") if task else note
        if task and text.startswith(f"{sizes[task]} validation items are few"):
            continue  # a run of an earlier version said so itself
        tasks_of.setdefault(text, []).extend([task] if task else [])
    return [f"{those(tasks, len(sizes))}: {clean(text)}" if tasks else clean(text) for text, tasks in tasks_of.items()]


def _not_learnable(story: Story, task: Task, items: int) -> bool:
    if story.measure(task).get("name") not in COUNTED or items < 2 or story.answer is None:
        return False
    base = story.base.reports.get(task)
    reached = [p.reports[task] for p in story.trail.points.values() if task in p.reports]
    return base is not None and bool(reached) and not learnable(base, max(reached), items)


def _rising(story: Story) -> list[Task]:
    """The active sub-datasets of a finished run's last roll-out whose curve has its maximum at the end."""
    searched = [rollout for rollout in story.rollouts if rollout.why != "refit"]
    if story.answer is None or not searched:
        return []
    last = searched[-1]
    if last.excluded or last.rolled_back or story.best_known.snapshot != last.end.snapshot:
        return []
    curves = {task: [p.scores[task] for p in last.points if task in p.scores] for task in last.active}
    return [task for task, curve in curves.items() if len(curve) > 2 and curve[-1] > max(curve[:-1])]
