"""What is wrong with a segment in itself, whatever came before it: `Search` refuses it before it is run."""

from __future__ import annotations

import math
from typing import NamedTuple, get_args

from msft.core.clock import Clock
from msft.core.plain_words import many
from msft.core.vocabulary import Mixture, Segment, Shape, Why


class Wrong(NamedTuple):
    """What was found, and how to fix it."""

    found: str
    fix: str


def wrong_with(segment: Segment, horizon: float, clock: Clock) -> Wrong | None:
    """The first thing that is wrong; None if the segment can be run. `horizon`: of the brief."""
    if segment.why not in get_args(Why):
        found = f"the method trains for the reason {segment.why!r}"
        return Wrong(found, f"let `why` be one of {', '.join(get_args(Why))}")
    return (
        _of_mixture(segment.mixture)
        or _of_anneal(segment, horizon, clock)
        or _of_blend(segment)
        or _of_teacher(segment)
    )


def _of_mixture(mixture: Mixture) -> Wrong | None:
    if strange := sorted(mixture.replayed - set(mixture.tasks)):
        return Wrong(
            f"the method replays {strange[0]}, which is not in the mixture",
            "name it in `tasks` too, with the share to replay, or leave it out of `replayed`",
        )
    for weight in mixture.loss_weights or ():
        if not (math.isfinite(weight) and weight >= 0):
            return Wrong(f"the method weighs a loss by {weight}", "give weights of 0 or more, and finite ones")
    if mixture.loss_weights and not any(mixture.loss_weights):
        return Wrong("the method weighs every loss by 0, so that nothing is learned", "give one a weight above 0")
    return None


def _of_anneal(segment: Segment, horizon: float, clock: Clock) -> Wrong | None:
    anneal = segment.anneal
    if anneal is None:
        return None
    if not segment.trains:
        return Wrong("the method lowers the learning rate where nothing is trained", "give `anneal` where steps are")
    if not 0 <= anneal.start < anneal.stop:
        found = f"the method lowers the learning rate from step {anneal.start} to step {anneal.stop} of the roll-out"
        return Wrong(found, "let `anneal` stop after it starts, both counted from the roll-out's beginning")
    if not 0 <= anneal.to <= 1:
        return Wrong(f"the method lowers the learning rate to {anneal.to} times itself", "give a factor from 0 to 1")
    if anneal.shape not in get_args(Shape):
        found = f"the method lowers the learning rate in the shape {anneal.shape!r}"
        return Wrong(found, f"let it be one of {', '.join(get_args(Shape))}")
    end = segment.epoch + clock.epochs(segment.mixture, anneal.stop - segment.start)
    # Roll-outs end on whole steps.
    if end > horizon + clock.epochs(segment.mixture, 1):
        found = f"the method lowers the learning rate until epoch {end:g}, and max_epochs is {horizon:g}"
        return Wrong(found, "begin earlier: `track.left(here)` has the epochs that are left")
    return None


def _of_blend(segment: Segment) -> Wrong | None:
    if segment.ties is not None and not (segment.blend and 0 < segment.ties < 1):
        found = f"the method merges {len(segment.blend)} snapshots by TIES, with a density of {segment.ties}"
        return Wrong(found, "give snapshots in `blend`, and a density between 0 and 1")
    if not segment.blend:
        return None
    if segment.start or segment.stop:
        found = f"the method blends snapshots and trains from step {segment.start} to step {segment.stop} at once"
        return Wrong(found, "blend in a segment of its own (`track.blend`), and train from its snapshot")
    for snapshot, weight in segment.blend:
        if not (math.isfinite(weight) and weight > 0):
            found = f"the method gives snapshot {snapshot} the weight {weight} in a blend"
            return Wrong(found, "give weights above 0, and leave out what has none")
    total = math.fsum(weight for _, weight in segment.blend)
    if abs(total - 1) > 1e-9:
        return Wrong(f"the weights of a blend sum to {total!r}", "divide each by their sum")
    return None


def _of_teacher(segment: Segment) -> Wrong | None:
    teacher = segment.teacher
    if teacher is None:
        return None
    if not segment.trains:
        return Wrong("the method gives a teacher where nothing is trained", "give `teacher` where steps are")
    if len(teacher.snapshots) not in (1, len(segment.mixture.tasks)):
        found = f"the method gives {many(len(segment.mixture.tasks), 'sub-dataset')} {len(teacher.snapshots)} teachers"
        return Wrong(found, "give one to each of them, or one alone to all")
    if not 0 < teacher.share <= 1:
        return Wrong(f"the method gives a teacher the share {teacher.share}", "give a share above 0, at most 1")
    if teacher.top < 1:
        return Wrong(f"the method asks for {teacher.top} tokens of a teacher's predictions", "let `top` be 1 or more")
    return None
