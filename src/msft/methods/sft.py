"""SFT: trains the whole mixture for `max_epochs` epochs and selects the best evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from msft.core.headroom import recorded
from msft.core.method import Method
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan


@dataclass(frozen=True, kw_only=True)
class Params:
    """Plain fine-tuning has no parameters."""


def plan(brief: Brief) -> Plan:
    track = Track(brief)
    answer = Answer(brief, track.base)
    here, mixture = track.base, Mixture(tasks=brief.tasks)
    for stop in track.ticks(here, mixture, brief.horizon):
        here = yield from track.advance(
            here, mixture, stop, score=brief.tasks, keep=answer.keep, probes=recorded(brief)
        )
        answer.offer(here)
    return answer.choose(here)


def outlook(brief: Brief, at: Standing) -> Outlook:
    return Outlook(bound=passes(brief, at), snapshots=PLAIN_HELD, plain=True)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, refits=True)
