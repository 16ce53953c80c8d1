"""`msft study headroom`: what stopping each sub-dataset at its own best moment would gain over the common moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from msft.config.schema import Config
from msft.core.headroom import Moments, moments
from msft.core.plain_words import many
from msft.core.vocabulary import Task
from msft.report.gains import SEEN, Gains, gains_of, in_points, sentences
from msft.report.story import Story
from msft.report.trail import Point
from msft.study.draw import beside, by_task, dots, upright
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import with_average
from msft.study.reading import Evidence
from msft.study.statistics import Interval, t_interval

FEWEST_SEEDS = 3
"""Seeds from which on the moments are read from the other seeds' curves."""


def variants(config: Config) -> tuple[Variant, ...]:
    return (Variant(name="sft_average", config=with_average(config, "sft")),)


def find(evidence: Evidence) -> Findings:
    stories = list(evidence.runs["sft_average"].values())
    tasks = stories[0].tasks
    by_seed = {seed: gains_of(story) for seed, story in evidence.runs["sft_average"].items()}
    read = {seed: gains for seed, gains in by_seed.items() if gains is not None}
    order = sorted(tasks, key=lambda task: fmean([gains.own[task] for gains in read.values()] or [0.0]))
    rows = [_row(task, list(read.values())) for task in order]
    columns = ("sub-dataset", "best epoch", "earliest seed", "latest seed", "seeds in which it may still rise")
    each = Table(
        title="Headroom of each seed, in points",
        columns=("seed", "search score", "low", "high", "test metric", "low", "high", "common epoch"),
        rows=[
            (seed, *(100 * x for g in (gains.score, gains.metric) for x in (g.estimate, g.low, g.high)), gains.common)
            for seed, gains in read.items()
        ],
    )
    drawn = by_task(
        [
            dots(f"seed {seed}", [gains.own[t] for t in order], beside(len(order), number, len(read)), number)
            for number, (seed, gains) in enumerate(read.items())
        ],
        order,
        x="best epoch",
    )
    if read:
        drawn["uprights"] = [upright(fmean(gains.common for gains in read.values()))]
    caption = "One dot per seed; dashed: the common moment, mean over seeds. Curves of averaged weights."
    return Findings(
        title="Headroom of plain fine-tuning with averaged weights",
        said=_said(stories, list(read.values())),
        plots=[Plot(title="The best epoch of each sub-dataset", figure=drawn, caption=caption)],
        tables=[Table(title="Best epochs", columns=columns, rows=rows), each],
    )


def _said(stories: Sequence[Story], read: Sequence[Gains]) -> list[str]:
    if len(stories[0].tasks) == 1:
        return ["A single sub-dataset has no headroom: its own best epoch is the common one."]
    said = list(_over_seeds(stories)) if len(stories) >= FEWEST_SEEDS else []
    if 1 < len(stories) < FEWEST_SEEDS:
        said.append(
            f"{FEWEST_SEEDS} seeds or more are needed for the gain; with {len(stories)}, only best epochs are shown. "
            f"Repeat the command with --seeds {FEWEST_SEEDS}: finished runs are kept."
        )
    if len(read) == 1:
        said += sentences(read[0])
    elif not read:
        said.append("There are too few validation items, or evaluations, to estimate the headroom of a single run.")
    return said


def _row(task: Task, read: Sequence[Gains]) -> tuple[str | float | None, ...]:
    own = [gains.own[task] for gains in read]
    if not own:
        return task, None, None, None, None
    return task, fmean(own), min(own), max(own), sum(task in gains.unreached for gains in read)


def _over_seeds(stories: Sequence[Story]) -> list[str]:
    """The gain of the moments that the other seeds show: it holds the variation of seeds."""
    score, metric = gains_over_seeds(stories)
    return [
        f"With moments read from the other seeds, {many(len(stories), 'seed')}: "
        f"{in_points(score.mean, score.low, score.high)} in search score and "
        f"{in_points(metric.mean, metric.low, metric.high)} in the test metric, on validation (95 % t interval over "
        f"seeds). {SEEN}"
    ]


def gains_over_seeds(stories: Sequence[Story]) -> tuple[Interval, Interval]:
    """The gain in search score and in the test metric over seeds, the moments of each read from the others' mean
    curves. The seeds need the same ticks and sub-datasets; at least two."""
    tasks = stories[0].tasks
    paths = [story.trunk for story in stories]
    shared = min(map(len, paths))
    paths = [path[:shared] for path in paths]
    scores, metrics = [], []
    for held, path in enumerate(paths):
        others = [other for i, other in enumerate(paths) if i != held]
        read = moments({task: _mean_curve(others, task) for task in tasks})
        scores.append(_gain([point.scores for point in path], read))
        metrics.append(_gain([point.reports for point in path], read))
    return t_interval(scores), t_interval(metrics)


def _mean_curve(paths: Sequence[Sequence[Point]], task: Task) -> list[float]:
    return [fmean(point.scores[task] for point in points) for points in zip(*paths, strict=True)]


def _gain(curve: Sequence[Mapping[Task, float]], read: Moments) -> float:
    return fmean(curve[tick][task] - curve[read.common][task] for task, tick in read.own.items())
