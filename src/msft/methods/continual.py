"""Continual SFT: trains one sub-dataset after another, each from the snapshot that scored best on the previous one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msft.core.curves import peak
from msft.core.method import Method
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, one_by_one
from msft.core.rollout import Answer, Track, curves, roll_out
from msft.core.vocabulary import Brief, Mixture, Plan, Task


@dataclass(frozen=True, kw_only=True)
class Params:
    order: Literal["given", "size_asc", "size_desc"] = "given"
    """Order of the sub-datasets: as configured, or by number of different training examples, ascending or
    descending."""


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    sequence = ordered(brief, p)
    track = Track(brief)
    answer = Answer(brief, track.base)
    here = track.base
    for i, task in enumerate(sequence):
        points = yield from roll_out(
            track, here, Mixture(tasks=(task,)), brief.horizon, watch=(task,), at_end=(task,), answer=answer
        )  # fmt: skip
        best = points[peak(curves(points, [task])[task]).tick]
        here = yield from track.turn(best, Mixture(tasks=tuple(sequence[i + 1 : i + 2])), keep=answer.keep)
        answer.offer(here)
    return answer.choose(here)


def ordered(brief: Brief, p: Params) -> list[Task]:
    """The sub-datasets in the order in which they are trained."""
    sizes = dict(zip(brief.tasks, brief.distinct, strict=True))
    sign = {"given": 0, "size_asc": 1, "size_desc": -1}[p.order]
    return sorted(brief.tasks, key=lambda task: sign * sizes[task])


def outlook(brief: Brief, at: Standing) -> Outlook:
    """Each sub-dataset may be trained for the whole limit on epochs, wherever it begins."""
    sequence = ordered(brief, brief.params)
    left = sequence[sequence.index(at.mixture.tasks[0]) :] if len(at.mixture.tasks) == 1 else sequence
    return Outlook(bound=one_by_one(brief, left), snapshots=PLAIN_HELD)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, presets={"default": {"select": "last"}})
