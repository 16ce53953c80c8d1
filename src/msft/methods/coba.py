"""CoBa, the convergence balancer: weighs the loss of each sub-dataset by how its validation loss moves.

arXiv 2410.06741. A sub-dataset whose loss falls slowly beside the others' counts more (relative score), one whose loss
rises counts less (absolute score); the divergence factor moves from the first to the second as the slowest
sub-dataset stops converging. Nothing is excluded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression

from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan, Probe, Task

Losses = Mapping[Task, float]


@dataclass(frozen=True, kw_only=True)
class Params:
    window: int = 5
    """Number of evaluations over which the slope of a validation loss is fitted (the paper's N: 2 to 5 passes over the
    validation items)."""
    tau: float = 5.0
    """Sharpness of the divergence factor."""

    def __post_init__(self) -> None:
        require(self.window >= 2, "window", "at least 2 evaluations", self.window)
        require(self.tau > 0, "tau", "more than 0", self.tau)


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    here, mixture = track.base, Mixture(tasks=brief.tasks)
    seen: list[tuple[float, Losses]] = []
    for stop in track.ticks(here, mixture, brief.horizon):
        here = yield from track.advance(
            here, mixture, stop, score=brief.tasks, keep=answer.keep, probes=[Probe.LOSS]
        )  # fmt: skip
        answer.offer(here)
        assert here.outcome.loss is not None, "the engine answers every probe"
        if all(math.isfinite(here.outcome.loss[task]) for task in brief.tasks):
            seen.append((here.epoch, here.outcome.loss))
        if len(seen) > 1:
            factors = tuple(len(brief.tasks) * share for share in shares(slopes(seen, brief.tasks, p.window), p))
            mixture = Mixture(tasks=brief.tasks, loss_weights=factors)
    return answer.choose(here)


def slopes(seen: Sequence[tuple[float, Losses]], tasks: Sequence[Task], window: int) -> list[list[float]]:
    """alpha_i(t), a list of the sub-datasets' slopes for each evaluation from the second on.

    `seen`: position and validation losses of each evaluation. The slope is that of a line through the last `window`
    ratios of the loss to the first one seen.
    """
    ratios = [[losses[task] / (seen[0][1][task] or 1.0) for task in tasks] for _, losses in seen]
    found = []
    for end in range(2, len(seen) + 1):
        span = slice(max(0, end - window), end)
        at = [epoch for epoch, _ in seen[span]]
        found.append([linear_regression(at, curve).slope for curve in zip(*ratios[span], strict=True)])
    return found


def shares(alpha: Sequence[Sequence[float]], p: Params) -> tuple[float, ...]:
    """omega_i = DF RCS_i + (1 - DF) ACS_i at the last evaluation, which sum to 1. `alpha`: as `slopes` returns it.

    RCS_i = softmax over i of K alpha_i(t) / sum_j |alpha_j(t)|. ACS_i = softmax over i of -N alpha_i(t) / sum over the
    window of |alpha_i|. DF = min(1, t times the last of the softmax over time of -tau t alpha_max / sum |alpha_max|).
    """
    now, recent, worst = alpha[-1], alpha[-p.window :], [max(each) for each in alpha]
    relative = softmax([len(now) * part for part in parts(now)])
    absolute = softmax([-len(recent) * parts(curve)[-1] for curve in zip(*recent, strict=True)])
    divergence = min(1.0, len(worst) * softmax([-p.tau * len(worst) * part for part in parts(worst)])[-1])
    return tuple(divergence * r + (1 - divergence) * a for r, a in zip(relative, absolute, strict=True))


def parts(numbers: Sequence[float]) -> list[float]:
    """Each number as a part of the sum of their magnitudes; 0 where all are 0."""
    total = math.fsum(map(abs, numbers))
    return [number / total if total else 0.0 for number in numbers]


def softmax(logits: Sequence[float]) -> list[float]:
    odds = [math.exp(logit - max(logits)) for logit in logits]
    return [odd / math.fsum(odds) for odd in odds]


def outlook(brief: Brief, at: Standing) -> Outlook:
    return Outlook(bound=passes(brief, at), snapshots=PLAIN_HELD)


METHOD = Method(plan=plan, Params=Params, outlook=outlook)
