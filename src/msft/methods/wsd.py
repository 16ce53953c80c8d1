"""WSD: a constant learning rate, then a cooldown to 0 (warmup-stable-decay, arXiv 2404.06395).

The cooldown is 1 - sqrt, and by default the last fifth of the run: the shape and the length that arXiv 2405.18392
recommends. Everything is trained all the time; the final model is the best evaluation. The warm-up is
`training.warmup`.
"""

from __future__ import annotations

from dataclasses import dataclass

from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Anneal, Brief, Mixture, Plan


@dataclass(frozen=True, kw_only=True)
class Params:
    cooldown: float = 0.2
    """Share of `max_epochs`, at its end, over which the learning rate falls to 0."""

    def __post_init__(self) -> None:
        require(0 < self.cooldown <= 1, "cooldown", "a share above 0, at most 1", self.cooldown)


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    here, mixture = track.base, Mixture(tasks=brief.tasks)
    ticks = track.ticks(here, mixture, brief.horizon)
    fall = Anneal(start=ticks[-1] - max(1, round(p.cooldown * ticks[-1])), stop=ticks[-1], shape="sqrt")
    for stop in ticks:
        here = yield from track.advance(
            here, mixture, stop, score=brief.tasks, keep=answer.keep, anneal=fall if stop > fall.start else None
        )
        answer.offer(here)
    return answer.choose(here)


def outlook(brief: Brief, at: Standing) -> Outlook:
    return Outlook(bound=passes(brief, at), snapshots=PLAIN_HELD, anneals=True)


METHOD = Method(plan=plan, Params=Params, outlook=outlook)
