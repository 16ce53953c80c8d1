"""SRO and Soft SRO: a single roll-out finds every peak, a second run uses the peaks (arXiv 2603.21606, baselines).

SRO's second run excludes each sub-dataset after its peak. Up to the first peak it would repeat the first run, so it
starts from that snapshot; each exclusion begins a new roll-out. Soft SRO excludes no sub-dataset: it samples each in
proportion to n_i * c_i (size times peak epoch). The paper does not define it further; this is our interpretation. The
final model comes from the second run.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from msft.core.curves import average, peak
from msft.core.method import Method, require
from msft.core.outlook import PLAIN_HELD, Outlook, Standing, most_held, passes
from msft.core.rollout import Answer, Point, Track, curves, depart, roll_out
from msft.core.vocabulary import Brief, Mixture, Outcome, Plan, Segment, Task


@dataclass(frozen=True, kw_only=True)
class Params:
    stop_after: int | None = None
    """Evaluations after the best macro-average at which run 1 ends; null: it ends at `max_epochs`."""
    smooth: int = 1
    """Number of evaluations in the centred mean that smooths a validation curve before its peak is read; odd."""

    def __post_init__(self) -> None:
        require(self.stop_after is None or self.stop_after >= 1, "stop_after", "at least 1 evaluation", self.stop_after)
        require(self.smooth >= 1 and self.smooth % 2 == 1, "smooth", "an odd number of evaluations", self.smooth)


def find_peaks(track: Track, p: Params, *, keep_peaks: bool) -> Generator[Segment, Outcome, dict[Task, Point]]:
    """Run 1: train the whole mixture up to the limit on epochs or `stop_after`; returns each sub-dataset's peak."""
    tasks = track.brief.tasks

    def over(points: list[Point]) -> bool:
        macro = [average(point.scores, tasks) for point in points]
        return p.stop_after is not None and len(points) - 1 - macro.index(max(macro)) >= p.stop_after

    points = yield from roll_out(
        track, track.base, Mixture(tasks=tasks), track.brief.horizon, watch=tasks, at_end=tasks,
        window=p.smooth if keep_peaks else None, until=over,
    )  # fmt: skip
    return {task: points[peak(curve, p.smooth).tick] for task, curve in curves(points, tasks).items()}


def plan(brief: Brief) -> Plan:
    track = Track(brief)
    peaks = yield from find_peaks(track, brief.params, keep_peaks=True)
    answer = Answer(brief, track.base)
    here = min(peaks.values(), key=lambda point: point.epoch)
    answer.offer(here)
    here = yield from depart(track, here, {task: point.epoch for task, point in peaks.items()}, answer)
    return answer.choose(here)


def soft_plan(brief: Brief) -> Plan:
    track = Track(brief)
    peaks = yield from find_peaks(track, brief.params, keep_peaks=False)
    answer = Answer(brief, track.base)
    here = track.base
    sizes = dict(zip(brief.tasks, brief.sizes, strict=True))
    weights = {task: sizes[task] * peaks[task].epoch for task in brief.tasks if peaks[task].epoch > 0}
    if weights:
        mixture = Mixture(tasks=tuple(weights), weights=tuple(weights.values()))
        epochs = sum(weights.values()) / sum(sizes[task] for task in weights)
        for stop in track.ticks(here, mixture, epochs):
            here = yield from track.advance(here, mixture, stop, score=brief.tasks, keep=answer.keep)
            answer.offer(here)
    return answer.choose(here)


def outlook(brief: Brief, at: Standing) -> Outlook:
    p: Params = brief.params
    # Each of the two runs may reach the limit on epochs.
    again = brief.horizon if at.rollout == 1 else 0.0
    held = most_held(brief, brief.horizon, p.smooth)
    return Outlook(
        bound=passes(brief, at, again=again), snapshots=held, window=p.smooth, excludes=True, last_run_only=True
    )


def soft_outlook(brief: Brief, at: Standing) -> Outlook:
    return replace(outlook(brief, at), snapshots=PLAIN_HELD)


SRO = Method(plan=plan, Params=Params, outlook=outlook)
SOFT_SRO = Method(plan=soft_plan, Params=Params, outlook=soft_outlook)
