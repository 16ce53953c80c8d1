"""What the optimizer did between two evaluations: training loss, learning rate, tokens per second."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from msft.core.schedule import learning_rate
from msft.core.vocabulary import ROOT, Snapshot
from msft.report.cost import RATE, rates_of
from msft.report.figures import Curves
from msft.report.plots import Figure
from msft.report.story import Story
from msft.report.trail import Point


def training_figures(story: Story, curves: Curves) -> Mapping[str, tuple[str, Figure]]:
    """Identifier -> (title, figure), those of which something is recorded."""
    found: dict[str, tuple[str, Figure]] = {}
    losses = {n: outcome.train_loss for n, (_, outcome) in enumerate(story.segments, start=1)}
    kinds: tuple[tuple[str, str, str, Callable[[Point], float | None], str], ...] = (
        ("loss", "Training loss", "nats", lambda point: losses.get(point.snapshot), ".4f"),
        ("rate", "Learning rate", "", _rate_at(story), ".3~g"),
        ("speed", "Training tokens per second", "tokens/s", _speed_at(story), ",.0f"),
    )
    for name, title, unit, of, form in kinds:
        if any(of(point) is not None for point in story.trail.points.values()):
            made = curves.of_segments(of, title.lower(), unit) | {"format": form}
            if name == "rate":  # a constant one is no line at 0, in a range of its own making
                made["layout"]["yaxis"] |= {"rangemode": "tozero", "tickformat": form}
            found[name] = title, made
    return found


def _rate_at(story: Story) -> Callable[[Point], float | None]:
    """The learning rate of a step that begins at a point."""
    config = story.header.get("config", {})
    if not isinstance(config.get(RATE), int | float):
        return lambda _: None
    rates = rates_of(story.header, story.changes)
    schedule, warmup = str(config.get("training.schedule", "constant")), float(config.get("training.warmup", 0.0))

    def at(point: Point) -> float | None:
        rate = next(rate for since, rate in reversed(rates) if since <= max(1, point.snapshot))
        rate = learning_rate(rate, schedule, warmup, story.brief.horizon, point.epoch)
        segment = story.segments[point.snapshot - 1][0] if point.snapshot != ROOT else None
        return rate if segment is None or segment.anneal is None else rate * segment.anneal.factor(segment.stop)

    return at


def _speed_at(story: Story) -> Callable[[Point], float | None]:
    """Tokens per second of the training that led to a point: input batches, passes and updates, not its scoring."""
    speeds: dict[Snapshot, float] = {}
    for entry in story.timings:
        number, seconds = entry.get("number"), entry.get("seconds", {})
        if entry.get("kind") != "segment" or not isinstance(number, int) or not 0 < number <= len(story.segments):
            continue
        spent = math.fsum(value for kind, value in seconds.items() if kind.partition(".")[0] == "train")
        tokens = story.segments[number - 1][1].tokens.train
        if spent > 0 and tokens:
            speeds[number] = tokens / spent
    return lambda point: speeds.get(point.snapshot)
