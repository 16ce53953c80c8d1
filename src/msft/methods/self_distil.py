"""Self-distillation: a first model teaches a second one of the same kind (born-again networks, arXiv 1805.04770).

The first is plain fine-tuning; its best tick is the teacher. The second is trained from the base model, for as long, on
the labels and on the teacher's predictions. The final model is the second run's best tick, or the base model where
none of the first run is better.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from msft.core.method import Method, require, said_by
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, passes
from msft.core.rollout import Answer, Point, Track
from msft.core.vocabulary import ROOT, Brief, Mixture, Outcome, Plan, Segment, Teacher, Why


@dataclass(frozen=True, kw_only=True)
class Params:
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
    """Which model is the teacher, from the outcomes so far."""
    return said_by(_plan, brief, outcomes)


def _plan(brief: Brief, said: list[str]) -> Plan:
    p: Params = brief.params
    track = Track(brief)
    first = Answer(brief, track.base)
    end = yield from _run(track, first, None, "teacher")
    best = first.best if brief.select == "best" else end
    if best.snapshot == ROOT:
        said.append("No model of the first run is better than the base model, so there is no second run.")
        return ROOT
    said.append(f"The model of epoch {best.epoch:.4g} of the first run teaches the second one.")
    answer = Answer(brief, track.base)
    teacher = Teacher(snapshot=best.snapshot, share=p.share, top=p.top)
    end = yield from _run(track, answer, teacher, "search")
    return answer.choose(end)


def _run(track: Track, answer: Answer, teacher: Teacher | None, why: Why) -> Generator[Segment, Outcome, Point]:
    """Trains everything from the base model on; returns the end."""
    tasks = track.brief.tasks
    here, mixture = track.base, Mixture(tasks=tasks)
    for stop in track.ticks(here, mixture, track.brief.horizon):
        here = yield from track.advance(here, mixture, stop, score=tasks, keep=answer.keep, teacher=teacher, why=why)
        answer.offer(here)
    return here


def outlook(brief: Brief, at: Standing) -> Outlook:
    again = brief.horizon if at.rollout == 1 else 0.0
    bound = passes(brief, at, again=again)
    p: Params = brief.params
    # It also holds the teacher, which reads every training example once.
    return Outlook(bound=bound, snapshots=PLAIN_HELD + 1, probed_epochs=1.0, soft_targets=1 + p.top, last_run_only=True)


METHOD = Method(plan=plan, Params=Params, outlook=outlook, explain=explain)
