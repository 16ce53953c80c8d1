"""Upper limits on what a method does, available before it starts: for estimates, retention and reports.

An outlook is derived from the brief and never journaled. Code outside `msft.methods` does not depend on the name, the
class or the parameter names of a method: it reads the outlook. `brief.base` may be empty here, because `msft check`
computes the outlook before anything is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from msft.core.clock import Clock
from msft.core.plain_words import many
from msft.core.vocabulary import Brief, Mixture, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The state of a search at the start of a roll-out."""

    mixture: Mixture
    rollout: int
    epoch: float
    """Position, in epochs."""

    @classmethod
    def start(cls, brief: Brief) -> Standing:
        """The state before the first roll-out, in which most methods train the whole mixture."""
        return cls(mixture=Mixture(tasks=brief.tasks), rollout=1, epoch=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Upper limit on the training that remains from the start of a roll-out."""

    instances: float
    """Discarded training included. The unit is that of `brief.sizes`: tokens, if the sizes are given in tokens."""
    why: str
    """The reason for the bound, in words: "the limit of 10 epochs"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookahead:
    """Settings with which the engine measures `Probe.LOOKAHEAD`."""

    examples: int = 8
    """Examples of each sub-dataset."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimizer of the virtual step."""
    times: int = 0
    """Maximum number of look-aheads in the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What other code needs to know about a method. The defaults mean that nothing is known."""

    bound: Bound | None = None
    """None: the training has no upper limit, or the method does not state one."""
    snapshots: int | None = None
    """Maximum number of snapshots kept at once; None: the method does not state one."""
    window: int = 1
    """Number of ticks in the centred mean that smooths a curve before the method reads its peak; odd."""
    rollout: float = math.inf
    """Maximum epochs of a roll-out, which then ends with a decision; the limit on epochs may end it earlier."""
    decides: bool = False
    """Whether the end of each roll-out decides which sub-datasets are excluded and where training resumes."""
    excludes: bool = False
    """Whether it may exclude sub-datasets: train on without them, for good. Reports then say which exclusions are in
    the final model."""
    lookahead: Lookahead = Lookahead()
    probed_epochs: float = 0.0
    """Maximum cost of all probes, in forward passes over all different training examples."""
    soft_targets: int = 0
    """Tokens of the target of each trained token where a teacher gives it, the label included; they are in memory. 0:
    no teacher."""
    last_run_only: bool = False
    """Whether the final model comes from a last run, which begins where the method last went back, and what was trained
    before only finds times."""
    anneals: bool = False
    """Whether the method may lower the learning rate itself (`Segment.anneal`): only a constant schedule lets it."""
    plain: bool = False
    """Whether this is plain fine-tuning, the baseline of all comparisons."""
    warnings: tuple[str, ...] = ()
    """Settings of this configuration that cannot work as intended, each as `field: what was found. Fix: how`."""


Forecast: TypeAlias = Callable[[Brief, Standing], Outlook]


def unknown(brief: Brief, at: Standing) -> Outlook:
    """The outlook of a method that defines none: no upper limits."""
    return Outlook()


def passes(brief: Brief, at: Standing, *, again: float = 0.0) -> Bound | None:
    """The bound of a method that trains until the limit on epochs, never rolls back, and never adds a sub-dataset.

    `again`: additional epochs of the whole mixture, such as those of a second run.
    """
    clock = Clock.of(brief)
    if not math.isfinite(brief.horizon):
        return None
    left = max(0.0, brief.horizon - at.epoch) * clock.instances(at.mixture)
    more = again * clock.instances(Mixture(tasks=brief.tasks))
    why = f"the limit of {many(brief.horizon, 'epoch')}" + (", twice" if again else "")
    return Bound(instances=left + more, why=why)


def one_by_one(brief: Brief, left: Collection[Task]) -> Bound | None:
    """The bound of a method that trains each of these sub-datasets for the whole limit, one after the other."""
    sizes = dict(zip(brief.tasks, brief.sizes, strict=True))
    instances = brief.horizon * sum(sizes[task] for task in left)
    if not math.isfinite(instances):
        return None
    return Bound(instances=instances, why=f"the limit of {many(brief.horizon, 'epoch')} for each sub-dataset")


def with_refit(found: Outlook, brief: Brief) -> Outlook:
    """The outlook of a search that a run on all rows follows: that trains at most up to the limit on epochs again, and
    teachers read all rows for it."""
    bound, probed = None, found.probed_epochs
    if found.bound is not None and math.isfinite(brief.horizon):
        instances = brief.horizon * Clock.of(brief).instances(Mixture(tasks=brief.tasks, whole=True))
        why = f"{found.bound.why}, and the final run on all rows"
        bound = Bound(instances=found.bound.instances + instances, why=why)
    if found.soft_targets:
        probed += 1 + sum(brief.held or ()) / sum(brief.distinct)
    return replace(found, bound=bound, probed_epochs=probed)


def most_held(brief: Brief, epochs: float, window: int) -> int | None:
    """Maximum number of snapshots that `roll_out` keeps over `epochs` epochs; None if `epochs` is infinite.

    These are one for each peak, half a window, the best point and the latest snapshot. Where every tick may become the
    final model, the best point may lie beside all peaks, already while every sub-dataset has one.
    """
    if not math.isfinite(epochs):
        return None
    clock, mixture = Clock.of(brief), Mixture(tasks=brief.tasks)
    ticks = len(clock.ticks(mixture, clock.steps(mixture, epochs)))
    return min(len(brief.tasks), ticks + 1) + HELD_BESIDE + (brief.candidates == "ticks") + window // 2


HELD_BESIDE = 2
"""Snapshots kept in addition to possible peaks: the best point so far, and the end of the last segment."""
PLAIN_HELD = HELD_BESIDE + 1
"""Snapshots that a method without peaks keeps: `HELD_BESIDE`, and the one that is being made."""
