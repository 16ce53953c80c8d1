"""Placebo: mSFT's exclusion times, assigned to random sub-datasets. If it scores like mSFT, the peaks did not help."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from msft.core.clock import Clock
from msft.core.method import Method, require
from msft.core.outlook import Bound, Outlook, Standing
from msft.core.rollout import Answer, Track, depart
from msft.core.vocabulary import Brief, Mixture, Plan, Task
from msft.methods import msft


@dataclass(frozen=True, kw_only=True)
class Params(msft.Params):
    """mSFT's parameters, and the exclusion times if they are already known."""

    times: Mapping[Task, float] | None = None
    """Epoch at which mSFT's run with the same seed excluded each sub-dataset (the end of the run, if it never did).

    null: run that search first. Its compute counts, and its model is discarded.
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


def outlook(brief: Brief, at: Standing) -> Outlook:
    """The limits of mSFT's search, unless the times are known, plus those of the placebo's own run."""
    p: Params = brief.params
    search = msft.outlook(brief, at)
    whole = Clock.of(brief).instances(Mixture(tasks=brief.tasks))
    if p.times is not None:
        last = max(p.times.values(), default=0.0)
        own = Bound(instances=max(0.0, last - at.epoch) * whole, why=f"the last exclusion at epoch {last:g}")
        return replace(search, bound=own, rollout=math.inf, decides=False, warnings=())
    longest = min(brief.horizon, p.budget * (p.max_rollouts or math.inf))
    bound = search.bound
    if bound is not None:
        bound = Bound(instances=bound.instances + longest * whole, why=f"{bound.why}, and the placebo's own run")
    return replace(search, bound=bound, last_run_only=True)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, presets=msft.METHOD.presets)
