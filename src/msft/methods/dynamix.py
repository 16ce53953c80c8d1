"""DynamixSFT: a bandit over sub-datasets whose reward is the look-ahead decrease of their losses (arXiv 2508.12116)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from msft.core.clock import Clock
from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Lookahead, Outlook, Standing, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan, Probe, Task


@dataclass(frozen=True, kw_only=True)
class Params:
    gamma: float = 0.3
    """Share of uniform exploration."""
    alpha: float = 0.95
    """Weight of the old value in the moving average of rewards."""
    beta: float = 4.0
    """Inverse temperature of the softmax over the averaged rewards."""
    update_every: int | Literal["auto"] = "auto"
    """Steps between updates of the sampling weights; `auto`: 1/50 of all steps, from 1 to the paper's 50."""
    lookahead_batch: int = 8
    """Number of examples of each sub-dataset in a look-ahead."""
    virtual: Literal["adam", "sgd"] = "adam"
    """Optimizer of the virtual step in a look-ahead."""

    def __post_init__(self) -> None:
        require(0 <= self.gamma <= 1, "gamma", "from 0 to 1", self.gamma)
        require(0 <= self.alpha <= 1, "alpha", "from 0 to 1", self.alpha)
        require(self.beta >= 0, "beta", "0 or more", self.beta)
        require(self.update_every == "auto" or self.update_every >= 1, "update_every", "auto or at least 1 step",
                self.update_every)  # fmt: skip
        require(self.lookahead_batch >= 1, "lookahead_batch", "at least 1", self.lookahead_batch)


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    here = track.base
    value = dict.fromkeys(brief.tasks, 0.0)
    mixture = Mixture(tasks=brief.tasks, weights=probabilities(brief, p, value))
    ticks = track.ticks(here, mixture, brief.horizon)
    updates = set(update_steps(p, ticks[-1]))
    for stop in sorted({*ticks, *updates}):
        here = yield from track.advance(
            here,
            mixture,
            stop,
            score=brief.tasks if stop in ticks else (),
            keep=answer.keep,
            probes=[Probe.LOOKAHEAD] if stop in updates else [],
        )
        answer.offer(here)
        if stop in updates:
            assert here.outcome.lookahead is not None, "the engine answers every probe"
            value = updated(value, here.outcome.lookahead, p.alpha)
            mixture = Mixture(tasks=brief.tasks, weights=probabilities(brief, p, value))
    return answer.choose(here)


def update_steps(p: Params, total: int) -> range:
    """The steps after which probabilities are updated, of `total` steps."""
    period = min(50, max(1, total // 50)) if p.update_every == "auto" else p.update_every
    return range(period, total, period)


def probabilities(brief: Brief, p: Params, value: Mapping[Task, float]) -> tuple[float, ...]:
    """p_k = (1 - gamma) * p0_k e^(beta Q_k) / sum_j p0_j e^(beta Q_j) + gamma / K, with p0 in proportion to size."""
    odds = [n * math.exp(p.beta * value[task]) for task, n in zip(brief.tasks, brief.sizes, strict=True)]
    total = math.fsum(odds)
    return tuple((1 - p.gamma) * odd / total + p.gamma / len(odds) for odd in odds)


def updated(value: Mapping[Task, float], rewards: Mapping[Task, float], alpha: float) -> dict[Task, float]:
    """Q_k <- alpha Q_k + (1 - alpha) r_k, r min-max normalised; where a reward is NaN or infinite, Q stays."""
    finite = [reward for reward in rewards.values() if math.isfinite(reward)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    new = dict(value)
    for task, reward in rewards.items():
        if math.isfinite(reward):
            normalised = (reward - low) / (high - low) if high > low else 0.0
            new[task] = alpha * value[task] + (1 - alpha) * normalised
    return new


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    times = 0
    if math.isfinite(brief.horizon):
        times = len(update_steps(p, Clock.of(brief).steps(Mixture(tasks=brief.tasks), brief.horizon)))
    return Outlook(
        bound=passes(brief, at),
        snapshots=PLAIN_HELD,
        lookahead=Lookahead(examples=p.lookahead_batch, optimizer=p.virtual, times=times),
    )


METHOD = Method(plan=plan, Params=Params, outlook=outlook)
