"""Placebo: mSFT's own exclusion times, dealt out at random. What beats it, beats it because of the peaks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from msft.core.method import Method, require
from msft.core.rollout import Answer, Track, depart
from msft.core.vocabulary import Brief, Plan, Task
from msft.methods import msft


@dataclass(frozen=True, kw_only=True)
class Params(msft.Params):
    """mSFT's parameters, and the times if they are known already."""

    times: Mapping[Task, float] | None = None
    """Epoch at which each sub-dataset left in mSFT's run of the same seed (its end for those that never did).

    None: run that search first. Its compute counts, its model does not.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for task, epoch in (self.times or {}).items():
            require(epoch >= 0, f"times.{task}", "0 epochs or more", epoch)


def plan(brief: Brief) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    if p.times is None:
        no_answer = Answer(replace(brief, select="last"), track.base)
        last, left_at = yield from msft.search(track, p, no_answer)
        times = {task: left_at.get(task, last.epoch) for task in brief.tasks}
    else:
        require(set(p.times) == set(brief.tasks), "times", f"one epoch for each of {sorted(brief.tasks)}",
                sorted(p.times))  # fmt: skip
        times = dict(p.times)
    dealt = [times[task] for task in brief.tasks]
    random.Random(f"placebo {brief.seed}").shuffle(dealt)
    answer = Answer(brief, track.base)
    leaves = dict(zip(brief.tasks, dealt, strict=True))
    here = yield from depart(track, track.base, leaves, answer, replay=p.replay)
    return answer.choose(here)


METHOD = Method(plan=plan, Params=Params, presets=msft.METHOD.presets)
