"""What a run cost: FLOPs as they were spent, bytes as they were held, and what plain fine-tuning would take (3.13)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msft.core.vocabulary import ROOT, Mixture, Snapshot, Tokens
from msft.report.story import Story


def flops_of(tokens: Tokens, parameters: int) -> dict[str, int]:
    """6 P per trained token, 2 P per token of a forward pass, P = non-embedding parameters (DESIGN 3.13)."""
    return {
        "train": 6 * parameters * tokens.train,
        "eval": 2 * parameters * tokens.eval,
        "probe": 2 * parameters * tokens.probe,
    }


def ledger(story: Story) -> list[int]:
    """FLOPs spent, all kinds together: entry 0 once the base model is scored, entry k at the end of segment k."""
    parameters = story.header["model"]["parameters"]
    outcomes = [story.brief.base, *(outcome for _, outcome in story.segments)]
    spent, entries = 0, []
    for outcome in outcomes:
        spent += sum(flops_of(outcome.tokens, parameters).values())
        entries.append(spent)
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Plain fine-tuning of the same mixture, reckoned from what an epoch of it took in this run."""

    epochs: float
    looks: int
    """Ticks, each scoring every sub-dataset."""
    flops: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.flops.values())


def plain(story: Story) -> Plain | None:
    """What training the whole mixture until the horizon would take, scored at the same rhythm.

    Without a horizon: until the position that the run reached. None where no epoch of the whole mixture was trained
    (a method that never mixes), or where the run is plain fine-tuning itself.
    """
    whole = [
        (segment, outcome)
        for segment, outcome in story.segments
        if segment.trains and segment.mixture.active == story.tasks and segment.mixture.weights is None
    ]
    if not whole or story.header.get("method") == "sft":
        return None
    clock, mixture = story.trail.clock, Mixture(tasks=story.tasks)
    trained = sum(clock.epochs(segment.mixture, segment.stop - segment.start) for segment, _ in whole)
    epochs = story.brief.horizon if math.isfinite(story.brief.horizon) else story.tip.epoch
    looks = len(clock.ticks(mixture, clock.steps(mixture, epochs)))
    per_epoch = sum(outcome.tokens.train for _, outcome in whole) / trained
    searched = sum(outcome.tokens.eval for _, outcome in story.segments) + story.brief.base.tokens.eval
    tested = story.tokens.eval - searched
    # The base model is scored as well, and the test is the same.
    tokens = Tokens(train=round(per_epoch * epochs), eval=story.brief.base.tokens.eval * (looks + 1) + tested)
    return Plain(epochs=epochs, looks=looks, flops=flops_of(tokens, story.header["model"]["parameters"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Snapshots on disk or in memory while one segment ran."""

    during: int
    """Bytes: the segment's parent, and what the method may still ask for."""
    end: int
    """Bytes: the same, and the segment's own snapshot."""
    steps: int
    """Optimizer steps of the segment."""


def holdings(story: Story) -> tuple[Sequence[Holding], int]:
    """What was held segment by segment, and the bytes that plain fine-tuning holds: its tip and its best."""
    sizes: dict[Snapshot, int] = {ROOT: 0}
    found = []
    for number, (segment, outcome) in enumerate(story.segments, start=1):
        held = sum(sizes[snapshot] for snapshot in segment.keep | {segment.parent})
        sizes[number] = outcome.bytes if segment.trains else 0
        found.append(Holding(during=held, end=held + sizes[number], steps=segment.stop - segment.start))
    return found, 2 * max(sizes.values())
