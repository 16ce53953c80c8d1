"""One pass: excludes each sub-dataset when it has stopped improving, without roll-backs.

This is ordinary early stopping for each sub-dataset: the baseline that roll-backs must beat.
"""

from __future__ import annotations

from dataclasses import dataclass

from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan


@dataclass(frozen=True, kw_only=True)
class Params:
    patience: int = 4
    """Number of evaluations without a new best score after which a sub-dataset is excluded."""

    def __post_init__(self) -> None:
        require(self.patience >= 1, "patience", "at least 1 evaluation", self.patience)


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    here, active = track.base, brief.tasks
    best = dict(here.scores)
    stale = dict.fromkeys(brief.tasks, 0)
    while active and (left := track.left(here)):
        staying = active
        ticks = track.ticks(here, Mixture(tasks=active), left)
        for stop in ticks:
            score = brief.tasks if stop == ticks[-1] else active
            here = yield from track.advance(here, Mixture(tasks=active), stop, score=score, keep=answer.keep)
            answer.offer(here)
            for task in active:
                stale[task] = 0 if here.scores[task] > best[task] else stale[task] + 1
                best[task] = max(best[task], here.scores[task])
            staying = tuple(task for task in active if stale[task] < p.patience)
            if staying != active:
                here = yield from track.turn(here, Mixture(tasks=staying), keep=answer.keep)
                answer.offer(here)
                break
        active = staying
    return answer.choose(here)


def outlook(brief: Brief, at: Standing) -> Outlook:
    return Outlook(bound=passes(brief, at), snapshots=PLAIN_HELD, excludes=True)


METHOD = Method(plan=plan, Params=Params, outlook=outlook)
