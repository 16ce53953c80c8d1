"""The lanes: when each sub-dataset was trained, over the epochs of the final path and over all compute spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Literal, TypeAlias

from msft.core.vocabulary import Mixture, Segment, Snapshot
from msft.report.cost import ledger
from msft.report.final_path import FinalPath, blended, final_path
from msft.report.plots import MANY, MARK, STAR, Figure, bars, figure, rows_of, short, shown, unit
from msft.report.rollouts import Rollout
from msft.report.story import Story
from msft.report.trail import Point
from msft.report.words import TEACHER, epochs

DISCARDED = "discarded"
How: TypeAlias = Literal["in full", "in part", "replayed"]
Place: TypeAlias = Literal["final", "teacher", "discarded"]
"""What training was for: the final model, a first run that taught it, or neither."""
Kind: TypeAlias = tuple[Place, How]
"""What the training was for, and how much of a sub-dataset an epoch took."""
KINDS: dict[Kind, tuple[str, str]] = {
    ("final", "in full"): ("trained in full", "#3b82c4"),
    ("final", "in part"): ("trained in part", "rgba(59,130,196,0.65)"),
    ("final", "replayed"): ("replayed in part", "rgba(59,130,196,0.35)"),
    ("teacher", "in full"): (TEACHER, "rgba(138,111,209,0.7)"),
    ("teacher", "in part"): (TEACHER, "rgba(138,111,209,0.5)"),
    ("teacher", "replayed"): (TEACHER, "rgba(138,111,209,0.3)"),
    ("discarded", "in full"): (DISCARDED, "rgba(140,140,140,0.6)"),
    ("discarded", "in part"): (DISCARDED, "rgba(140,140,140,0.4)"),
    ("discarded", "replayed"): (DISCARDED, "rgba(140,140,140,0.25)"),
}
"""Name and colour. Traces of one name have one legend entry."""
SAID: dict[Place, str] = {"final": "", "teacher": f", {TEACHER}", "discarded": f", {DISCARDED}"}


@dataclass
class _Lane:
    base: list[float] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    y: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


def lane_figure(story: Story) -> Figure:
    """Both views; see `msft.report.plots`."""
    spent, path = ledger(story), final_path(story)
    per, name = unit(spent[-1], "FLOPs")
    rows = len(story.tasks)
    made = rows_of(figure([], height=110 + (26 if rows <= MANY else 14) * (rows + 1), legend=True), story.tasks)
    made["layout"]["yaxis"]["range"] = [rows - 0.5, -1.5]  # above the first lane, the numbers of the decisions
    made["layout"]["barmode"] = "overlay"
    followed = [(n, r) for n, r in numbered(story) if path.follows(r) and (r.excluded or r.rolled_back)]
    last = path.points[-1].epoch
    stayed = [(n, min(r.end.epoch, last)) for n, r in numbered(story) if _stayed(path, r) and r.why != "refit"]
    taken = [(n, short(spent[r.end.snapshot] / per)) for n, r in numbered(story)]
    made["views"] = [_trajectory(story, path), _compute(story, path, spent, per, name)]
    made["marks"] = [_numbers(sorted([*((n, r.went_on.epoch) for n, r in followed), *stayed])), _numbers(taken)]
    made["uprights"] = [
        {"at": [r.went_on.epoch, short(spent[r.end.snapshot] / per)], "colour": MARK, "dash": "dot"}
        for _, r in followed
    ]
    if story.answer is not None:
        at = [story.answer.epoch, short(spent[story.answer.snapshot] / per)]
        made["uprights"].append({"at": at, "colour": STAR, "dash": "solid"})
    return made


def place_of(story: Story, path: FinalPath, snapshot: Snapshot) -> Place:
    """What the training of a snapshot was for."""
    return "final" if snapshot in path.snapshots else "teacher" if snapshot in story.teachers else "discarded"


def numbered(story: Story) -> list[tuple[int, Rollout]]:
    """The roll-outs that ended with a decision, with the number of that decision in the run."""
    done = [rollout for rollout in story.rollouts if story.answer or rollout.followed]
    return list(enumerate(done, start=1))


def in_path(path: FinalPath, rollout: Rollout) -> bool:
    """Whether a decision is part of the final path: it continues with it, or trained there and excluded nothing."""
    return path.follows(rollout) or _stayed(path, rollout) or rollout.why == "teacher"


def _stayed(path: FinalPath, rollout: Rollout) -> bool:
    trained = any(point.snapshot in path.snapshots for point in rollout.points[1:])
    return trained and not rollout.excluded and not rollout.rolled_back


def circled(number: int) -> str:
    """①, ②, ...; (51) where there is no such character."""
    for first, last, start in ((1, 20, 0x2460), (21, 35, 0x3251), (36, 50, 0x32B1)):
        if first <= number <= last:
            return chr(start + number - first)
    return f"({number})"


def _numbers(places: Sequence[tuple[int, float]]) -> list[tuple[float, str]]:
    """Where the numbers of decisions stand; those at one place side by side."""
    at: dict[float, str] = {}
    for number, x in places:
        at[short(x)] = at.get(short(x), "") + circled(number)
    return list(at.items())


def _trajectory(story: Story, path: FinalPath) -> list[Figure]:
    lanes = {key: _Lane() for key in KINDS}
    for points in (path.points, *blended(story, path)):
        for _, legs in groupby(pairwise(points), key=lambda leg: _parts(leg[1])):
            steps = list(legs)
            mixture = steps[-1][1].mixture
            assert mixture is not None, "only the base model has no mixture"
            start, end = steps[0][0].epoch, steps[-1][1].epoch
            _add(story, lanes, mixture, "final", start, end, f"epoch {epochs(start)} to {epochs(end)}")
    return _drawn(lanes)


def _compute(story: Story, path: FinalPath, spent: list[int], per: float, unit_name: str) -> list[Figure]:
    lanes = {key: _Lane() for key in KINDS}
    trained = [(n, segment) for n, (segment, _) in enumerate(story.segments, start=1) if segment.trains]

    def alike(entry: tuple[int, Segment]) -> object:
        number, segment = entry
        return segment.rollout, _shown_of(segment.mixture), place_of(story, path, number)

    for _, entries in groupby(trained, key=alike):
        run = list(entries)
        (first, segment), (last, _) = run[0], run[-1]
        start, end = short(spent[first - 1] / per), short(spent[last] / per)
        text = f"roll-out {segment.rollout}, {start:.4g} to {end:.4g} {unit_name}"
        _add(story, lanes, segment.mixture, place_of(story, path, first), start, end, text)
    return _drawn(lanes)


def _add(
    story: Story, lanes: dict[Kind, _Lane], mixture: Mixture, place: Place, start: float, end: float,
    text: str,
) -> None:  # fmt: skip
    for task in mixture.tasks:
        share = mixture.share(task)
        how: How = "replayed" if task in mixture.replayed else "in full" if share == 1 else "in part"
        lane = lanes[place, how]
        lane.base.append(start)
        lane.x.append(end - start)
        lane.y.append(story.tasks.index(task))
        what = ("replayed" if how == "replayed" else "trained") + ("" if share == 1 else f", {share:.0%} of it")
        lane.text.append(f"{shown(task)}: {what}{SAID[place]}, {text}")


def _drawn(lanes: dict[Kind, _Lane]) -> list[Figure]:
    made = [bars(lane.base, lane.x, lane.y, lane.text, *KINDS[key]) for key, lane in lanes.items() if lane.x]
    names = [trace["name"] for trace in made]
    return [{**t, "showlegend": t["name"] not in names[:i], "legendgroup": t["name"]} for i, t in enumerate(made)]


def _parts(point: Point) -> object:
    return None if point.mixture is None else _shown_of(point.mixture)


def _shown_of(mixture: Mixture) -> object:
    """The part of a mixture that the lanes show: a change of weights or of single examples changes no lane."""
    return mixture.tasks, mixture.shares, mixture.replayed
