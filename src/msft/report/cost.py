"""Cost of a run: FLOPs spent, bytes held, and an estimate for plain fine-tuning (design 3.13)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from msft.core.retention import Limits, Settled, replayed
from msft.core.vocabulary import ROOT, Mixture, Snapshot, Task, Tokens
from msft.core.wire import Json
from msft.report.story import Story
from msft.report.words import in_epochs

MAX, RATE = "snapshots.max", "training.learning_rate"
"""The configuration keys, as written in the journal's header."""


def flops_of(tokens: Tokens, parameters: int, again: int = 0) -> dict[str, int]:
    """6 P per trained token, 2 P per token of a forward pass, P = non-embedding parameters (design 3.13).

    `again`: tokens that were trained again for snapshots that had been dropped because of `snapshots.max`.
    """
    return {
        "train": 6 * parameters * tokens.train,
        "eval": 2 * parameters * tokens.eval,
        "probe": 2 * parameters * tokens.probe,
        "recompute": 6 * parameters * again,
    }


def flops(story: Story) -> dict[str, int]:
    """FLOPs by kind (design 3.13)."""
    again = sum(each.again_tokens for each in holdings(story)[0])
    return flops_of(story.tokens, story.header["model"]["parameters"], again)


def ledger(story: Story) -> list[int]:
    """Cumulative FLOPs of all kinds: entry 0 after the base model is scored, entry k at the end of segment k.

    Training that was repeated between two segments counts at the end of the first.
    """
    parameters = story.header["model"]["parameters"]
    spent = sum(flops_of(story.brief.base.tokens, parameters).values())
    entries = [spent]
    for (_, outcome), held in zip(story.segments, holdings(story)[0], strict=True):
        spent += sum(flops_of(outcome.tokens, parameters, held.again_tokens).values())
        entries.append(spent)
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Plain fine-tuning of the same mixture, estimated from the cost of an epoch of it in this run."""

    epochs: float
    evaluations: int
    """Each evaluation scores every sub-dataset."""
    flops: dict[str, int]

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"plain SFT of {in_epochs(self.epochs)}"

    @property
    def total(self) -> int:
        return sum(self.flops.values())


def plain(story: Story) -> Plain | None:
    """The cost of training the whole mixture to the limit on epochs, with evaluations at the same interval.

    Without a limit: to the position that the run reached. None if no epoch of the whole mixture was trained (a method
    that never mixes), or if the run itself is plain fine-tuning.
    """
    whole = [
        (segment, outcome)
        for segment, outcome in story.segments
        if segment.trains and segment.why != "refit" and _whole(segment.mixture, story.tasks)
    ]
    if not whole or story.outlook.plain:
        return None
    clock, mixture = story.trail.clock, Mixture(tasks=story.tasks)
    trained = sum(clock.epochs(segment.mixture, segment.stop - segment.start) for segment, _ in whole)
    epochs = story.brief.horizon if math.isfinite(story.brief.horizon) else story.tip.epoch
    evaluations = len(clock.ticks(mixture, clock.steps(mixture, epochs)))
    per_epoch = sum(outcome.tokens.train for _, outcome in whole) / trained
    searched = sum(outcome.tokens.eval for _, outcome in story.segments) + story.brief.base.tokens.eval
    tested = story.tokens.eval - searched
    # Plain fine-tuning also scores the base model, and its test costs the same.
    tokens = Tokens(train=round(per_epoch * epochs), eval=story.brief.base.tokens.eval * (evaluations + 1) + tested)
    return Plain(epochs=epochs, evaluations=evaluations, flops=flops_of(tokens, story.header["model"]["parameters"]))


def _whole(mixture: Mixture, tasks: tuple[Task, ...]) -> bool:
    """Whether an epoch of the mixture is every sub-dataset in full."""
    return mixture.tasks == tasks and mixture.weights is None and set(mixture.shares or ()) <= {1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Snapshots on disk or in memory while one segment ran, and while others were trained again after it."""

    during: int
    """Bytes of the snapshots held while it ran: those that may still be requested, usually with its parent."""
    end: int
    """Bytes of the same and of the segment's own snapshot."""
    steps: int
    """Optimizer steps of the segment."""
    again: Sequence[tuple[int, int, int]] = ()
    """For each segment that was trained again after this one: other bytes held, bytes held at its end, its steps."""
    again_tokens: int = 0
    """Tokens of the segments in `again`."""

    @property
    def most(self) -> int:
        return max(self.end, *(end for _, end, _ in self.again), 0)


def limits_of(header: Json, changes: Sequence[Json]) -> Limits:
    """(first segment, `snapshots.max` from there on), in order."""
    now = [(change["since"], change["now"]) for change in changes if tuple(change["path"]) == ("config", MAX)]
    return [(1, header["config"].get(MAX)), *now]


def rates_of(header: Json, changes: Sequence[Json]) -> list[tuple[int, float]]:
    """(first segment, learning rate from there on), in order."""
    now = [(change["since"], float(change["now"])) for change in changes if tuple(change["path"]) == ("config", RATE)]
    return [(1, float(header["config"][RATE])), *now]


def holdings(story: Story) -> tuple[Sequence[Holding], int]:
    """The snapshots held during each segment, and the bytes that plain fine-tuning holds (its last and its best)."""
    sizes: dict[Snapshot, int] = {ROOT: 0}
    for number, (segment, outcome) in enumerate(story.segments, start=1):
        sizes[number] = outcome.bytes if segment.makes else 0

    def size(snapshots: Collection[Snapshot]) -> int:
        return sum(sizes[snapshot] for snapshot in snapshots)

    answer = story.answer.snapshot if story.answer else None
    limits = limits_of(story.header, story.changes)
    _, settled = replayed(story.brief, story.segments, None, answer, limits, story.outlook.window)
    nothing = Settled(first=frozenset(), again=(), held=frozenset())
    found, before = [], nothing
    for number, (segment, _) in enumerate(story.segments, start=1):
        # In a run in progress, nothing has followed the last segment yet.
        after = settled[number - 1] if number <= len(settled) else nothing
        again = [(n, size(beside), story.segments[n - 1]) for n, beside in after.again]
        found.append(
            Holding(
                during=size(before.held),
                end=size(before.held) + sizes[number],
                steps=segment.stop - segment.start,
                again=[(beside, beside + sizes[n], s.stop - s.start) for n, beside, (s, _) in again],
                again_tokens=sum(outcome.tokens.train for _, _, (_, outcome) in again),
            )
        )
        before = after
    return found, 2 * max(sizes.values())
