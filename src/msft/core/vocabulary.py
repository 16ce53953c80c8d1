"""The words that methods and engines speak to each other. Standard library only, no behaviour.

A method yields `Segment`s and receives `Outcome`s; it never sees a weight. An engine runs segments; it never sees
a method. A roll-back is nothing but a segment whose `parent` is an older snapshot.

Units: *steps* are optimizer steps (one global batch each), *epochs* are passes over the active mixture, *instances*
are training examples. Only `msft.core.clock` converts between them.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

Task: TypeAlias = str
"""The name of a sub-dataset."""

Snapshot: TypeAlias = int
"""The number of the segment that produced it; `ROOT` is the base model."""

ROOT: Snapshot = 0
"""The base model: never copied, never counted, always there."""


LATER = MappingProxyType({"later": True})
"""The metadata of a field that came after version 0.1: a journal names it only where it is not at its default, so that
older journals and their hashes stay."""


class Probe(enum.Enum):
    """A measurement beyond scores. Each adds the field of its name to the outcome."""

    ITEMS = "items"
    """The control score of each validation item of each scored sub-dataset, at `stop`."""
    LOOKAHEAD = "lookahead"
    """The relative fall of the loss on one batch of each sub-dataset by one virtual step on it, at `stop`."""
    LOSSES = "losses"
    """The loss of every instance trained in the segment, as trained; at the end of an epoch also of those left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What an epoch is made of.

    An epoch takes every instance of each of `tasks` once, or, with `shares`, that part of each; or, with `weights`,
    as many draws as the sub-datasets have instances. `without` leaves single instances (task, index) out.
    """

    tasks: tuple[Task, ...]
    shares: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None
    without: frozenset[tuple[Task, int]] = frozenset()

    def __post_init__(self) -> None:
        assert self.shares is None or self.weights is None, "a mixture takes shares of passes or samples, not both"
        for numbers in (self.shares, self.weights):
            assert numbers is None or len(numbers) == len(self.tasks), "one number for each sub-dataset"

    @property
    def active(self) -> tuple[Task, ...]:
        """The sub-datasets that take part in full; the others are only replayed against forgetting."""
        if self.shares is None:
            return self.tasks
        return tuple(task for task, share in zip(self.tasks, self.shares, strict=True) if share == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What to train next, from where, and what to measure at its end.

    `start == stop` trains nothing: it scores the parent and makes no snapshot. `start == 0` begins a roll-out: its
    order of instances starts afresh.
    """

    parent: Snapshot
    rollout: int
    mixture: Mixture
    start: int
    """Optimizer steps since this roll-out began."""
    stop: int
    """Optimizer steps since this roll-out began."""
    epoch: float
    """Position at `start`, in epochs along the surviving trajectory."""
    score: tuple[Task, ...]
    """The sub-datasets to score at `stop`."""
    probes: frozenset[Probe] = frozenset()
    keep: frozenset[Snapshot] = frozenset()
    """The snapshots, beside `parent`, that the method may still ask for."""
    reset_optimizer: bool = False
    """Start from the parent's weights with an empty optimizer, as the paper's release does at a roll-back."""

    @property
    def trains(self) -> bool:
        return self.stop > self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Real tokens (no padding) that went through the model."""

    train: int = 0
    """Forward and backward in optimizer steps."""
    eval: int = 0
    """Forward only, for scores."""
    probe: int = 0
    """In probes, as forward-pass equivalents (a backward pass counts as two)."""

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(train=self.train + other.train, eval=self.eval + other.eval, probe=self.probe + other.probe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was measured. No clock in it: seconds go to `timings.jsonl`, outside every hash."""

    snapshot: Snapshot
    """The segment's own number, or its parent where it trained nothing."""
    scores: Mapping[Task, float]
    """Control scores, higher is better: what a search acts on."""
    reports: Mapping[Task, float]
    """What people read, in [0, 1]: accuracy, exact match, exp(-NLL)."""
    items: Mapping[Task, tuple[float, ...]] | None = None
    lookahead: Mapping[Task, float] | None = None
    losses: Mapping[Task, Mapping[int, float]] | None = None
    """Index of the instance to its loss (mean NLL of its trained tokens)."""
    train_loss: float | None = None
    """Mean over the segment's steps of the loss of the global batch."""
    tokens: Tokens = field(default_factory=Tokens)
    bytes: int = 0
    """Size of the snapshot that the segment made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """All that a method knows about the job. With the outcomes, it determines every decision."""

    tasks: tuple[Task, ...]
    """In the order of the configuration."""
    sizes: tuple[int, ...]
    """Training instances of each sub-dataset."""
    validation_sizes: tuple[int, ...]
    """Validation items of each sub-dataset (the weights of a micro-average)."""
    batch_size: int
    """Instances per optimizer step, whatever the hardware."""
    seed: int
    base: Outcome
    """The base model, scored on every sub-dataset."""
    horizon: float
    """Where the surviving trajectory ends at the latest, in epochs; may be infinite."""
    eval_every: float
    """Epochs between ticks."""
    select: Literal["best", "last"] = "best"
    average: Literal["macro", "micro"] = "macro"
    score_excluded: Literal["rollout", "tick"] = field(default="rollout", metadata=LATER)
    """When a sub-dataset that has left is scored: where all are, or at every tick, which decides nothing."""
    params: Any = None
    """The method's own `Params`."""


Plan: TypeAlias = Generator[Segment, Outcome, Snapshot]
"""A method at work: yields what to do next, receives what was measured, returns the snapshot that is its answer."""
