"""Continual SFT: the sub-datasets one after another, each from the previous one's best tick on itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msft.core.curves import peak
from msft.core.method import Method
from msft.core.rollout import Answer, Track, curves, roll_out
from msft.core.vocabulary import Brief, Mixture, Plan


@dataclass(frozen=True, kw_only=True)
class Params:
    order: Literal["given", "size_asc", "size_desc"] = "given"
    """Sub-datasets as configured, or by the number of training instances."""


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    sizes = dict(zip(brief.tasks, brief.sizes, strict=True))
    sign = {"given": 0, "size_asc": 1, "size_desc": -1}[p.order]
    sequence = sorted(brief.tasks, key=lambda task: sign * sizes[task])
    track = Track(brief)
    answer = Answer(brief, track.base)
    here = track.base
    for i, task in enumerate(sequence):
        points = yield from roll_out(
            track, here, Mixture(tasks=(task,)), brief.horizon, watch=(task,), at_end=(task,), keep=answer.keep
        )  # fmt: skip
        best = points[peak(curves(points, [task])[task]).tick]
        here = yield from track.turn(best, Mixture(tasks=tuple(sequence[i + 1 : i + 2])), keep=answer.keep)
        answer.offer(here)
    return answer.choose(here)


METHOD = Method(plan=plan, Params=Params, presets={"default": {"select": "last"}})
