"""Self-distillation: a first run teaches a second one of the same kind (born-again networks, arXiv 1805.04770).

The first run is plain fine-tuning. The second is trained from the base model, for as long, on the labels and on what
models of the first predict: for each sub-dataset, the model at its own best evaluation (the base model counts), so that
none is taught by a model that has overfitted it or has not learned it yet. The final model is the best evaluation of
both runs, or the base model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msft.core.method import Method, require, said_by
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Point, Track
from msft.core.vocabulary import ROOT, TOP, Brief, Mixture, Outcome, Plan, Segment, Task, Teacher, Why


@dataclass(frozen=True, kw_only=True)
class Params:
    teachers: Literal["own", "common", "random"] = "own"
    """What teaches a sub-dataset: the first run's model at its own best evaluation; or one model for all, that of the
    best average; or the models of `own`, dealt to the sub-datasets at random (one may keep its own): the control for a
    claim that peaks matter."""
    share: float = 0.5
    """Of the teacher's predictions in the target of each trained token; the rest is the label."""
    top: int = TOP
    """The teacher's most likely tokens that keep their probabilities; what remains falls to the label."""

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "share", "above 0, at most 1", self.share)
        require(self.top >= 1, "top", "at least 1", self.top)


def plan(brief: Brief) -> Plan:
    return _plan(brief, [])


def explain(brief: Brief, outcomes: Sequence[Outcome]) -> list[str]:
    """What teaches, and which run the final model is of, from the outcomes so far."""
    return said_by(_plan, brief, outcomes)


def _plan(brief: Brief, said: list[str]) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    answer = Answer(brief, track.base)
    peaks = {} if p.teachers == "common" else dict.fromkeys(brief.tasks, track.base)
    end = yield from _run(track, answer, "teacher", peaks=peaks)
    best = answer.best if brief.select == "best" else end
    if p.teachers == "random":
        dealt = list(peaks.values())
        random.Random(brief.seed).shuffle(dealt)
        peaks = dict(zip(peaks, dealt, strict=True))
    taught = tuple(point.snapshot for point in peaks.values()) or (best.snapshot,)
    if set(taught) == {ROOT}:
        what = "No sub-dataset is better at any evaluation" if peaks else "No average is better at any evaluation"
        said.append(f"{what} of the first run than with the base model, so there is no second run.")
        return answer.choose(end)
    said.append(_who(peaks, best, own=p.teachers == "own"))
    end = yield from _run(track, answer, "search", Teacher(snapshots=taught, share=p.share, top=p.top))
    if brief.select == "best" and answer.best is best and best.snapshot != ROOT:
        said.append("The second run is not better on validation: the final model is of the first, plain fine-tuning.")
    return answer.choose(end)


def _run(
    track: Track, answer: Answer, why: Why, teacher: Teacher | None = None, peaks: dict[Task, Point] | None = None
) -> Generator[Segment, Outcome, Point]:
    """Trains everything from the base model on; returns the end. Keeps the best point of each task of `peaks` there."""
    tasks, peaks = track.brief.tasks, {} if peaks is None else peaks
    here, mixture = track.base, Mixture(tasks=tasks)
    for stop in track.ticks(here, mixture, track.brief.horizon):
        keep = answer.keep | {point.snapshot for point in peaks.values()}
        here = yield from track.advance(here, mixture, stop, score=tasks, keep=keep, teacher=teacher, why=why)
        answer.offer(here)
        peaks |= {task: here for task, point in peaks.items() if here.scores[task] > point.scores[task]}
    return here


def _who(peaks: Mapping[Task, Point], best: Point, *, own: bool) -> str:
    """Who teaches, in a sentence."""
    points = list(peaks.values()) or [best]
    if len({point.snapshot for point in points}) == 1:
        return f"The model of epoch {points[0].epoch:.4g} of the first run teaches the second one."
    first, last = (which(peaks, key=lambda task: peaks[task].epoch) for which in (min, max))
    whose = "its own best evaluation" if own else "the best evaluation of a sub-dataset that is drawn at random"
    return (
        f"Each sub-dataset is taught by the model at {whose} of the first run: from {_place(peaks[first])} ({first}) "
        f"to {_place(peaks[last])} ({last})."
    )


def _place(point: Point) -> str:
    return "the base model" if point.snapshot == ROOT else f"epoch {point.epoch:.4g}"


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    again = brief.horizon if at.rollout == 1 else 0.0
    # It also holds the teachers, which read every training example once.
    teachers = 1 if p.teachers == "common" else len(brief.tasks)
    if math.isfinite(brief.horizon):
        teachers = min(teachers, math.ceil(brief.horizon / brief.eval_every))
    return Outlook(
        bound=passes(brief, at, again=again), snapshots=PLAIN_HELD + teachers, probed_epochs=1.0, soft_targets=1 + p.top
    )


METHOD = Method(plan=plan, Params=Params, outlook=outlook, explain=explain, refits=True)
