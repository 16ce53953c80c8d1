"""IES: leaves out mastered instances, those whose loss curve has become straight.

Instance-dependent Early Stopping, ICLR 2025. The left-out set is rebuilt from all instances after every epoch, so that
instances can return.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan, Probe, Task

NEEDED = 6
"""Number of losses that must be recorded before an instance can be mastered."""


@dataclass(frozen=True, kw_only=True)
class Params:
    threshold: float = 1e-3
    """An example is left out while the mean absolute second difference of its loss is below this value."""

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "threshold", "0 or more", self.threshold)


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    here = track.base
    losses: dict[tuple[Task, int], list[float]] = defaultdict(list)
    everything = frozenset((task, i) for task, n in zip(brief.tasks, brief.distinct, strict=True) for i in range(n))
    mastered: frozenset[tuple[Task, int]] = frozenset()
    # If all instances are mastered, there is nothing left to train.
    while (left := track.left(here)) and mastered != everything:
        mixture = Mixture(tasks=brief.tasks, without=mastered)
        epoch: dict[tuple[Task, int], float] = {}  # one loss of each instance: the last, if it is repeated
        for stop in track.ticks(here, mixture, min(1.0, left)):
            here = yield from track.advance(
                here, mixture, stop, score=brief.tasks, keep=answer.keep, probes=[Probe.LOSSES]
            )
            answer.offer(here)
            assert here.outcome.losses is not None, "the engine answers every probe"
            for task, by_index in here.outcome.losses.items():
                epoch |= {(task, index): loss for index, loss in by_index.items()}
        for key, loss in epoch.items():
            losses[key].append(loss)
        mastered = frozenset(key for key in everything if curvature(losses[key]) < p.threshold)
    return answer.choose(here)


def curvature(losses: Sequence[float]) -> float:
    """Mean of the last three values of |L(t) - 2 L(t-1) + L(t-2)|; infinite while fewer than six are recorded."""
    if len(losses) < NEEDED:
        return float("inf")
    return sum(abs(losses[t] - 2 * losses[t - 1] + losses[t - 2]) for t in (-1, -2, -3)) / 3


def outlook(brief: Brief, at: Standing) -> Outlook:
    """The probe computes the loss of every instance that is not trained once per epoch."""
    warnings: tuple[str, ...] = ()
    if brief.horizon <= NEEDED:
        warnings = (
            f"method.max_epochs: IES leaves out no example before the end of epoch {NEEDED}, and the run ends at epoch "
            f"{brief.horizon:g}. Fix: set max_epochs to at least {NEEDED + 1}",
        )
    return Outlook(
        bound=passes(brief, at), snapshots=PLAIN_HELD, probed_epochs=brief.horizon, warnings=warnings
    )  # fmt: skip


METHOD = Method(plan=plan, Params=Params, outlook=outlook)
