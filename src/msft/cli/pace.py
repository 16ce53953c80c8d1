"""How long it may still take: the pace so far, and the bound that a method's parameters set (DESIGN 1.1, cost law)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msft.core.clock import Clock
from msft.core.rollout import replaying
from msft.core.vocabulary import Brief, Mixture, Segment
from msft.engine.progress import StepInfo
from msft.report.story import param
from msft.report.words import epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What may still be trained from the start of a roll-out, at most."""

    instances: float
    why: str
    """What the bound comes from, in words."""


def bound(brief: Brief, method: str, segment: Segment, epoch: float) -> Bound | None:
    """The bound at the start of the roll-out of `segment`, at position `epoch`; None where there is none.

    A search trains until its horizon, and gives up one roll-out for each sub-dataset that is still active; dearest is
    that the smallest leave first. SRO and the placebo train the horizon once more.
    """
    clock, horizon, budget = Clock.of(brief), brief.horizon, param(brief, "budget")
    whole = clock.instances(Mixture(tasks=brief.tasks))
    if method == "continual":
        return None
    if budget is None:
        left = max(0.0, horizon - epoch) * clock.instances(segment.mixture)
        again = method in {"sro", "soft_sro"} and segment.rollout == 1
        why = f"the horizon of {epochs(horizon)} epochs" + (", twice" if again else "") if math.isfinite(left) else ""
        return Bound(instances=left + horizon * whole * again, why=why) if math.isfinite(left) else None
    active, budget = segment.mixture.active, min(budget, horizon)
    left = (horizon - epoch) * clock.instances(segment.mixture) + _given_up(brief, clock, active, budget)
    why = f"the horizon of {epochs(horizon)} epochs, and a roll-out of {epochs(budget)} given up for each still active"
    if (most := param(brief, "max_rollouts")) is not None:
        rollouts = max(1, most - segment.rollout + 1)
        if (few := rollouts * budget * clock.instances(segment.mixture)) < left:
            left, why = few, f"{rollouts} more roll-outs of {epochs(budget)} epochs"
    if method == "placebo":
        left, why = left + min(horizon, budget * (most or math.inf)) * whole, f"{why}, and the placebo's own run"
    return Bound(instances=left, why=why) if math.isfinite(left) else None


def _given_up(brief: Brief, clock: Clock, active: tuple[str, ...], budget: float) -> float:
    """Instances in roll-outs that end in one exclusion each, the smallest sub-dataset first."""
    sizes = dict(zip(brief.tasks, brief.sizes, strict=True))
    gone = [task for task in brief.tasks if task not in active]
    total = 0.0
    for task in sorted(active, key=sizes.__getitem__):
        total += budget * clock.instances(replaying(brief.tasks, gone, param(brief, "replay") or 0.0))
        gone.append(task)
    return total


class Pace:
    """Where a roll-out stands, in steps, and how fast it goes."""

    def __init__(self) -> None:
        self.rollout = 0
        self.planned = 0
        """The step at which it is expected to end."""
        self.step = 0
        self.loss: float | None = None
        self._first = 0
        self._began = 0.0
        self._started: float | None = None
        """When the first segment began of which steps were told; None before."""

    def begin(self, segment: Segment, steps: int, now: float) -> None:
        """A segment of the roll-out begins; `steps` may be taken from its start, 0 where nobody knows."""
        if segment.rollout != self.rollout or segment.start == 0:
            self.rollout, self.planned, self._started = segment.rollout, 0, None
        if segment.stop > self.planned:
            self.planned = max(segment.stop, segment.start + steps)
        self.step, self._began = segment.start, now
        if self._started is None:
            self._first = segment.start

    def advance(self, info: StepInfo) -> None:
        self.step, self.loss = info.step, info.loss
        if self._started is None:
            self._started = self._began

    def per_step(self, now: float) -> float | None:
        """Seconds a step at the pace so far, scoring included; None before the first step."""
        done = self.step - self._first
        return (now - self._started) / done if self._started is not None and done > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds left in the roll-out; None before the first step."""
        each = self.per_step(now)
        return None if each is None else each * (self.planned - self.step)
