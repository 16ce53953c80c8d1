"""Self-distillation: a first run teaches a second one of the same kind (born-again networks, arXiv 1805.04770).

The first run is plain fine-tuning. The second is trained from the base model, for as long, on the labels and on what
the first predicts: for each sub-dataset, the model at its own best evaluation, so that none is taught by a model that
has overfitted it or has not learned it yet. The final model is the best evaluation of both runs.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msft.core.method import Method, require, said_by
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Point, Track
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Plan, Segment, Task, Teacher


@dataclass(frozen=True, kw_only=True)
class Params:
    teachers: Literal["own", "common", "random"] = "own"
    """What teaches a sub-dataset: the first run's model at its own best evaluation, or the model of the best average,
    which then teaches all, or that of another sub-dataset's best evaluation, dealt at random: the control for a claim
    that peaks matter."""
    share: float = 0.5
    """Of the teacher's predictions in the target of each trained token; the rest is the label."""
    top: int = 16
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
    p, track = brief.params, Track(brief)
    answer = Answer(brief, track.base)
    peaks = dict.fromkeys(() if p.teachers == "common" else brief.tasks, track.base)
    end = yield from _first(track, answer, peaks)
    if p.teachers == "random":
        dealt = list(peaks.values())
        random.Random(brief.seed).shuffle(dealt)
        peaks = dict(zip(peaks, dealt, strict=True))
    best = answer.best if brief.select == "best" else end
    taught = tuple(peaks[task].snapshot for task in peaks) or (best.snapshot,)
    if set(taught) == {ROOT}:
        said.append("No model of the first run is better than the base model, so there is no second run.")
        return answer.choose(end)
    said.append(_who(peaks, best, own=p.teachers == "own"))
    end = yield from _second(track, answer, Teacher(snapshots=taught, share=p.share, top=p.top))
    if brief.select == "best" and answer.best is best:
        said.append("The second run is not better on validation: the final model is of the first, plain fine-tuning.")
    return answer.choose(end)


def _first(track: Track, answer: Answer, peaks: dict[Task, Point]) -> Generator[Segment, Outcome, Point]:
    """Trains everything, and keeps the best point of each sub-dataset in `peaks`; returns the end."""
    tasks = track.brief.tasks
    here, mixture = track.base, Mixture(tasks=tasks)
    for stop in track.ticks(here, mixture, track.brief.horizon):
        keep = answer.keep | {point.snapshot for point in peaks.values()}
        here = yield from track.advance(here, mixture, stop, score=tasks, keep=keep, why="teacher")
        answer.offer(here)
        peaks |= {task: here for task, point in peaks.items() if here.scores[task] > point.scores[task]}
    return here


def _second(track: Track, answer: Answer, teacher: Teacher) -> Generator[Segment, Outcome, Point]:
    """Trains everything from the base model on with the teacher; returns the end."""
    tasks = track.brief.tasks
    here, mixture = track.base, Mixture(tasks=tasks)
    for stop in track.ticks(here, mixture, track.brief.horizon):
        here = yield from track.advance(here, mixture, stop, score=tasks, keep=answer.keep, teacher=teacher)
        answer.offer(here)
    return here


def _who(peaks: Mapping[Task, Point], best: Point, *, own: bool) -> str:
    """Who teaches, in a sentence."""
    epochs = {task: point.epoch for task, point in peaks.items()} or {"": best.epoch}
    if len(set(epochs.values())) == 1:
        return f"The model of epoch {next(iter(epochs.values())):.4g} of the first run teaches the second one."
    first, last = min(epochs, key=epochs.__getitem__), max(epochs, key=epochs.__getitem__)
    which = "its own best evaluation" if own else "the best evaluation of a sub-dataset that is drawn at random"
    return (
        f"Each sub-dataset is taught by the first run's model at {which}: from epoch {epochs[first]:.4g} ({first}) to "
        f"epoch {epochs[last]:.4g} ({last})."
    )


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    again = brief.horizon if at.rollout == 1 else 0.0
    # It also holds the teachers, which read every training example once.
    teachers = 1
    if p.teachers != "common":
        ticks = len(Track(brief).ticks(Track(brief).base, Mixture(tasks=brief.tasks), brief.horizon))
        teachers = min(len(brief.tasks), ticks)
    return Outlook(
        bound=passes(brief, at, again=again), snapshots=PLAIN_HELD + teachers, probed_epochs=1.0, soft_targets=1 + p.top
    )


METHOD = Method(plan=plan, Params=Params, outlook=outlook, explain=explain)
