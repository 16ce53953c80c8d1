"""What a method may do at most, known before it begins: what estimates, retention and reports need to know of it.

Derived from the brief and never journaled. Nothing outside `msft.methods` knows a method by its name, its class or
the spelling of its parameters: it asks the outlook. `brief.base` may be empty here, as nothing is scored yet when
`msft check` asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msft.core.clock import Clock
from msft.core.vocabulary import Brief, Mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a search stands at the start of a roll-out."""

    mixture: Mixture
    rollout: int
    epoch: float
    """Position, in epochs."""

    @classmethod
    def start(cls, brief: Brief) -> Standing:
        """Before the first roll-out; for most methods that trains the whole mixture."""
        return cls(mixture=Mixture(tasks=brief.tasks), rollout=1, epoch=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What may still be trained, at most, from the start of a roll-out."""

    instances: float
    """Roll-backs included. In the unit of `brief.sizes`: with the tokens of each sub-dataset as sizes, tokens."""
    why: str
    """What the bound comes from, in words: "the limit of 10 epochs"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookahead:
    """How the engine answers `Probe.LOOKAHEAD`."""

    examples: int = 8
    """Examples of each sub-dataset."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Of the virtual step."""
    times: int = 0
    """Look-aheads of the whole run, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What others need to know of a method. The defaults say that nothing is known."""

    bound: Bound | None = None
    """None: nothing bounds the training, or the method does not say."""
    snapshots: int | None = None
    """Snapshots held at once, at most; None: the method does not say."""
    window: int = 1
    """Ticks in the centred mean under which the method reads a peak; odd."""
    rollout: float = math.inf
    """Epochs after which a roll-out ends in a decision at the latest, if the limit on epochs does not end it before."""
    decides: bool = False
    """Whether the end of each roll-out decides which sub-datasets are excluded and where training resumes."""
    lookahead: Lookahead = Lookahead()
    probed_epochs: float = 0.0
    """Forward passes over the whole mixture that probes take, at most."""
    plain: bool = False
    """Plain fine-tuning: the run that all others are compared with."""
    warnings: tuple[str, ...] = ()
    """What in this configuration cannot work as meant, as `field: what. How to fix it`."""


Forecast: TypeAlias = Callable[[Brief, Standing], Outlook]


def unknown(brief: Brief, at: Standing) -> Outlook:
    """The outlook of a method that has none: nothing bounds it."""
    return Outlook()


def passes(brief: Brief, at: Standing, *, again: float = 0.0) -> Bound | None:
    """The bound of a method that trains until the limit on epochs and never rolls back.

    `again`: epochs of the whole mixture that come on top, such as a second run's.
    """
    clock = Clock.of(brief)
    if not math.isfinite(brief.horizon):
        return None
    left = max(0.0, brief.horizon - at.epoch) * clock.instances(at.mixture)
    more = again * clock.instances(Mixture(tasks=brief.tasks))
    why = f"the limit of {brief.horizon:g} epochs" + (", twice" if again else "")
    return Bound(instances=left + more, why=why)


def most_held(brief: Brief, epochs: float, window: int) -> int | None:
    """Snapshots that `roll_out` over so many epochs keeps at most: one a peak, the best, the tip, half a window."""
    if not math.isfinite(epochs):
        return None
    clock, mixture = Clock.of(brief), Mixture(tasks=brief.tasks)
    ticks = len(clock.ticks(mixture, clock.steps(mixture, epochs)))
    return min(len(brief.tasks), ticks + 1) + HELD_BESIDE + window // 2


HELD_BESIDE = 2
"""Snapshots beside possible peaks: the best point so far, and the end of the last segment."""
PLAIN_HELD = HELD_BESIDE + 1
"""Snapshots that a method without peaks holds: those, and the one that is being made."""
