"""The types that methods and engines exchange. Standard library only, no behaviour beyond what follows from the fields.

A method yields `Segment`s and receives `Outcome`s; it never sees a weight. An engine runs segments; it never sees
a method. A roll-back is a segment whose `parent` is an older snapshot.

Units: *steps* are optimizer steps (one global batch each), *epochs* are passes over the active mixture, *instances*
are training examples. Only `msft.core.clock` converts between them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

Task: TypeAlias = str
"""The name of a sub-dataset."""

Snapshot: TypeAlias = int
"""The number of the segment that produced it; `ROOT` is the base model."""

ROOT: Snapshot = 0
"""The base model: never copied, never counted, always available."""


LATER = MappingProxyType({"later": True})
"""The metadata of a field that was added after version 0.1: a journal contains the field only if it differs from its
default, so that older journals and their hashes stay valid."""


class Probe(enum.Enum):
    """A measurement in addition to scores. Each fills the field of the outcome that has its name."""

    ITEMS = "items"
    """The search score of each validation item of each scored sub-dataset, at `stop`."""
    METRICS = "metrics"
    """The test metric of each validation item of each scored sub-dataset, at `stop`."""
    LOOKAHEAD = "lookahead"
    """For each sub-dataset, the relative decrease of the loss on one batch after a virtual step on it, at `stop`."""
    LOSSES = "losses"
    """The loss of every instance of the segment in its (last) training step; at the end of an epoch also of those that
    it left out or did not take."""
    LOSS = "loss"
    """The loss of each scored sub-dataset on its validation items, at `stop`, whatever its scorer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The content of an epoch.

    An epoch takes as many instances of each of `tasks` as the brief's `sizes` say, by default each once; with `shares`,
    that share of them; with `weights`, as many weighted draws in all. `without` leaves out single instances (task,
    index). Those of `tasks` that are in `replayed` are excluded: they are trained only to limit forgetting, and
    decide nothing.
    """

    tasks: tuple[Task, ...]
    shares: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None
    without: frozenset[tuple[Task, int]] = frozenset()
    replayed: frozenset[Task] = frozenset()
    """A journal contains it only where it is not exactly the sub-datasets with a share below 1 (`core/wire.py`)."""
    loss_weights: tuple[float, ...] | None = field(default=None, metadata=LATER)
    """The loss of each instance of a sub-dataset times this, in training; None: 1 for all. The divisor of the global
    batch's loss does not change, so a weight of 0 is a gradient of 0. Losses that are reported are not weighted."""
    whole: bool = field(default=False, metadata=LATER)
    """Whether an epoch also takes the instances that are held out for validation (`Brief.whole`). A model that was
    trained on them is scored on no sub-dataset: `Search` refuses it."""

    def __post_init__(self) -> None:
        assert self.shares is None or self.weights is None, "a mixture has shares or weights, not both"
        for numbers in (self.shares, self.weights, self.loss_weights):
            assert numbers is None or len(numbers) == len(self.tasks), "one number for each sub-dataset"

    @property
    def active(self) -> tuple[Task, ...]:
        """The sub-datasets that are not excluded."""
        return tuple(task for task in self.tasks if task not in self.replayed)

    def share(self, task: Task) -> float:
        """The part of a sub-dataset of the mixture that an epoch takes."""
        return 1.0 if self.shares is None else self.shares[self.tasks.index(task)]


Why: TypeAlias = Literal["search", "candidate", "teacher", "final", "refit"]
"""What a segment is for: the search itself; a branch off it whose end may become the final model, and from which the
search then returns to where it was; the training of a model that only teaches another; the end of the search; the run
on all rows that follows a search (`msft.core.refit`). The first segment of that run trains nothing: its parent is the
point that the search chose."""


Shape: TypeAlias = Literal["linear", "cosine", "sqrt"]
"""How a learning rate falls: evenly, along half a cosine, or as 1 - sqrt (fast at first, then ever more slowly)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anneal:
    """A learning rate that falls over some steps of a roll-out: a factor beside `training.schedule`, which must be
    constant. The training counts within `max_epochs`."""

    start: int
    """Optimizer steps since the roll-out began; before, the factor is 1."""
    stop: int
    """Optimizer steps since the roll-out began; from here on, the factor is `to`."""
    to: float = 0.0
    """In [0, 1]."""
    shape: Shape = "linear"

    def factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied by."""
        done = min(1.0, max(0.0, (step - self.start) / (self.stop - self.start)))
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        elif self.shape == "sqrt":
            done = math.sqrt(done)
        return 1 - (1 - self.to) * done


TOP = 16
"""A teacher's most likely tokens that are kept for each trained token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Models whose predictions are trained on beside the labels (distillation, arXiv 1503.02531).

    At each trained token, the target is `share` times the teacher's distribution, plus 1 - `share` on the label. Only
    the teacher's `top` most likely tokens are kept; the probability of all others is added to the label.
    """

    snapshots: tuple[Snapshot, ...]
    """The model that teaches each sub-dataset of the mixture, in its order; a single one teaches all. Their averaged
    weights where `training.average` is on."""
    share: float = 0.5
    """Above 0, at most 1."""
    top: int = TOP
    """Tokens; at least 1."""

    def of(self, tasks: tuple[Task, ...]) -> dict[Task, Snapshot]:
        """The model that teaches each sub-dataset of a mixture."""
        found = self.snapshots * len(tasks) if len(self.snapshots) == 1 else self.snapshots
        return dict(zip(tasks, found, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What to train next, from which snapshot, and what to measure at the end.

    A segment with `start == stop` trains nothing: it scores the parent and makes no snapshot, unless it blends others.
    `start == 0` begins a roll-out, with a new order of instances.
    """

    parent: Snapshot
    rollout: int
    mixture: Mixture
    start: int
    """Optimizer steps since this roll-out began."""
    stop: int
    """Optimizer steps since this roll-out began."""
    epoch: float
    """Position at `start`: epochs from the base model to the parent, discarded training not counted."""
    score: tuple[Task, ...]
    """The sub-datasets to score at `stop`."""
    probes: frozenset[Probe] = frozenset()
    keep: frozenset[Snapshot] = frozenset()
    """The snapshots that the method may still request, in addition to `parent`."""
    reset_optimizer: bool = False
    """Start from the parent's weights with an empty optimizer, as the paper's release does at a roll-back."""
    anneal: Anneal | None = field(default=None, metadata=LATER)
    """How the learning rate falls in this segment; None: only as `training.schedule` says."""
    blend: tuple[tuple[Snapshot, float], ...] = field(default=(), metadata=LATER)
    """Snapshots and their weights, which sum to 1: makes a snapshot whose weights are the weighted mean of theirs (of
    what is evaluated: their averaged weights where `training.average` is on). It has an empty optimizer, and training
    goes on from it only at step 0 of a roll-out. `start` and `stop` are 0; the position is that of `parent`."""
    ties: float | None = field(default=None, metadata=LATER)
    """Of a blend: None for the mean; else TIES (arXiv 2306.01708) on the differences of the snapshots from the base
    model, with this density: the share of each tensor's differences that is kept, between 0 and 1."""
    teacher: Teacher | None = field(default=None, metadata=LATER)
    """Whose predictions it trains on; None: the labels alone. The same in all segments of a roll-out. Losses that are
    reported are those of the labels."""
    why: Why = field(default="search", metadata=LATER)
    """For reports only: whether the search goes on from here, or this is a branch that was meant to end."""

    @property
    def trains(self) -> bool:
        return self.stop > self.start

    @property
    def makes(self) -> bool:
        """Whether it makes a snapshot."""
        return self.trains or bool(self.blend)

    @property
    def made_of(self) -> frozenset[Snapshot]:
        """The snapshots whose weights it starts from: the ancestors of a snapshot are a graph, not a path."""
        return frozenset({self.parent, *(snapshot for snapshot, _ in self.blend)})

    @property
    def sources(self) -> frozenset[Snapshot]:
        """The snapshots that must exist to run it."""
        return self.made_of if self.teacher is None else self.made_of.union(self.teacher.snapshots)


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
    """What was measured. It contains no times: seconds go to `timings.jsonl`, outside every hash."""

    snapshot: Snapshot
    """The segment's own number, or its parent if it made no snapshot."""
    scores: Mapping[Task, float]
    """Search scores, higher is better: the method's decisions use these."""
    reports: Mapping[Task, float]
    """Metrics for people, in [0, 1]: accuracy, exact match or exp(-NLL)."""
    items: Mapping[Task, tuple[float, ...]] | None = None
    lookahead: Mapping[Task, float] | None = None
    losses: Mapping[Task, Mapping[int, float]] | None = None
    """For each sub-dataset: index of an instance -> its loss (mean NLL of its trained tokens)."""
    metrics: Mapping[Task, tuple[float, ...]] | None = field(default=None, metadata=LATER)
    loss: Mapping[Task, float] | None = field(default=None, metadata=LATER)
    """For each scored sub-dataset: the mean over its validation items of the item's mean NLL, in nats per token of the
    reference completion."""
    train_loss: float | None = None
    """Mean over the segment's steps of the loss of the global batch, not weighted by `Mixture.loss_weights`."""
    tokens: Tokens = field(default_factory=Tokens)
    bytes: int = 0
    """Size of the snapshot that the segment made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """All information about the job that a method receives. With the outcomes, it determines every decision."""

    tasks: tuple[Task, ...]
    """In the order of the configuration."""
    sizes: tuple[int, ...]
    """Training instances that an epoch takes of each sub-dataset."""
    validation_sizes: tuple[int, ...]
    """Validation items of each sub-dataset (the weights of a micro-average)."""
    batch_size: int
    """Instances per optimizer step, whatever the hardware."""
    seed: int
    base: Outcome
    """The base model, scored on every sub-dataset."""
    horizon: float
    """`max_epochs`: the maximum length of the final path, in epochs; may be infinite."""
    eval_every: float
    """Epochs between ticks."""
    select: Literal["best", "last"] = "best"
    average: Literal["macro", "micro"] = "macro"
    score_excluded: Literal["rollout", "tick"] = field(default="rollout", metadata=LATER)
    """When an excluded sub-dataset is scored: only where all are, or at every tick, which affects no exclusion."""
    candidates: Literal["decisions", "ticks"] = field(default="decisions", metadata=LATER)
    """Which points may become the final model: those where the search decides, or every tick, fully scored."""
    pools: tuple[int, ...] | None = field(default=None, metadata=LATER)
    """Different training instances of each sub-dataset; None: `sizes`, because an epoch takes each of them once."""
    record: bool = field(default=False, metadata=LATER)
    """Whether every evaluation records each item (`Probe.ITEMS`, `Probe.METRICS`), as in the runs of a study, whatever
    the method asks for."""
    whole: tuple[int, ...] | None = field(default=None, metadata=LATER)
    """Training instances that an epoch of all rows takes of each sub-dataset, those that are held out included. None:
    no run on all rows follows the search."""
    held: tuple[int, ...] | None = field(default=None, metadata=LATER)
    """Instances of each sub-dataset that are held out; they follow the others in number. None: as `whole`."""
    aggregate: Task | None = field(default=None, metadata=LATER)
    """The name, none of `tasks`, of items that are only scored: with `select: best`, their score alone chooses the
    final model. They are scored wherever a point may become it, and decide no exclusion."""
    params: Any = None
    """The method's own `Params`."""

    @property
    def names(self) -> tuple[Task, ...]:
        """What has validation scores: the sub-datasets, and the aggregate last."""
        return self.tasks if self.aggregate is None else (*self.tasks, self.aggregate)

    @property
    def distinct(self) -> tuple[int, ...]:
        """Different training instances of each sub-dataset."""
        return self.sizes if self.pools is None else self.pools


Plan: TypeAlias = Generator[Segment, Outcome, Snapshot]
"""A running method: yields the next segment, receives its outcome, and returns the snapshot of the final model."""
