"""The final path: the training that led to the final model, and which exclusions are part of it (design 4).

A search also trains what it discards, and it may choose a point before its exclusions as the final model. So what a run
decided and what its final model consists of are two questions; everything that answers the second one asks here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TypeAlias

from msft.core.vocabulary import ROOT, Mixture, Snapshot, Task
from msft.report.cost import flops, ledger
from msft.report.rollouts import Rollout
from msft.report.story import Story
from msft.report.trail import Point
from msft.report.words import clean, epochs, listed

MOST_NAMES = 8
"""Maximum number of names in the sentence about exclusions."""

FEWER = "The final model was chosen among fewer candidates by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A sub-dataset that is not trained from `epoch` on, in epochs of the path."""

    task: Task
    epoch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalPath:
    """The path from the base model to the final model or, while the search goes on, to its latest point. Where a run on
    all rows follows the search, it is the path that this run repeats."""

    points: tuple[Point, ...]
    """The base model first."""
    excluded: tuple[Exclusion, ...]
    """The exclusions that are part of it, in the order of their epochs."""
    made: int
    """The exclusions of the whole search, those on discarded training included."""
    snapshots: frozenset[Snapshot]
    """All that the final model was made from: those of `points`, and of a blend the ancestors of its parts; the run on
    all rows, and the path of the search that it follows, where there is one."""
    until: Mapping[Task, float]
    """The epoch until which each sub-dataset was trained in any of `snapshots`; 0: never."""
    finished: bool

    def follows(self, rollout: Rollout) -> bool:
        """Whether the path continues with the decision that ended a roll-out.

        It does if the point from which the search went on is on the path, and what follows there was trained after
        the decision. In the final model, a decision after which nothing was trained changed nothing.
        """
        if not rollout.followed or rollout.went_on.snapshot not in self.snapshots:
            return False
        later = [b.snapshot for a, b in pairwise(self.points) if a.snapshot == rollout.went_on.snapshot]
        return later[0] > rollout.end.snapshot if later else not self.finished


def final_path(story: Story) -> FinalPath:
    """The final path of a run; of a run in progress, the path to the latest point of the search."""
    points = story.trail.lineage(story.best_known.snapshot)
    excluded: tuple[Exclusion, ...] = ()
    if story.outlook.excludes:
        last = points[-1].mixture
        if story.chosen is None and story.segments:
            last = story.segments[-1][0].mixture  # a decision may be taken, and nothing trained since
        excluded = _excluded(points, story.tasks, story.tasks if last is None else last.active)
    followed = frozenset(story.trail.ancestors({story.best_known.snapshot}))
    snapshots = followed | story.refit_snapshots
    until = dict.fromkeys(story.tasks, 0.0)
    for point in (story.trail.points[snapshot] for snapshot in followed - {ROOT}):
        if point.mixture is not None and story.segments[point.snapshot - 1][0].trains:
            until |= {task: max(until[task], point.epoch) for task in point.mixture.active}
    return FinalPath(
        points=tuple(points),
        excluded=excluded,
        made=_made(story) if story.outlook.excludes else 0,
        snapshots=snapshots,
        until=until,
        finished=story.answer is not None,
    )


def discarded(story: Story, path: FinalPath) -> list[list[Point]]:
    """All training that is no part of the final model, each branch from the point where it leaves the final path, what
    was blended into it, or an earlier branch."""
    left = set(story.trail.points) - path.snapshots - story.teachers
    return _branches(story, left, path.snapshots | story.teachers)


def taught_by(story: Story, path: FinalPath) -> list[list[Point]]:
    """The training of a first run that taught the final model, and is neither part of it nor discarded."""
    return _branches(story, story.teachers - path.snapshots, path.snapshots)


def discarded_share(story: Story, path: FinalPath) -> float:
    """Share of all compute that trained, and scored, what is neither in the final model nor taught it."""
    spent, left = ledger(story), set(story.trail.points) - path.snapshots - story.teachers
    wasted = sum(b - a for n, (a, b) in enumerate(pairwise(spent), start=1) if n in left)
    return wasted / total if (total := sum(flops(story).values())) else 0.0


def blended(story: Story, path: FinalPath) -> list[list[Point]]:
    """The training beside the final path that a blend made a part of the final model."""
    on_path = {point.snapshot for point in path.points}
    return _branches(story, path.snapshots - on_path - story.refit_snapshots, on_path)


def _branches(story: Story, chosen: Collection[Snapshot], others: Collection[Snapshot]) -> list[list[Point]]:
    """Chosen points as lines, each from the point of the others, or of an earlier line, where it begins."""
    points, drawn = story.trail.points, set[Snapshot](others)
    parents = {points[snapshot].parent for snapshot in chosen}
    found = []
    for tip in (p for p in points.values() if p.snapshot in chosen and p.snapshot not in parents):
        branch = [tip]
        while branch[-1].snapshot not in drawn and branch[-1].snapshot != ROOT:
            drawn.add(branch[-1].snapshot)
            branch.append(points[branch[-1].parent])
        found.append(branch[::-1])
    return found


def _excluded(points: Sequence[Point], tasks: Sequence[Task], active: Sequence[Task]) -> tuple[Exclusion, ...]:
    """The sub-datasets that are not in `active`, the mixture at the end of the path, and when each was last trained."""
    trained = dict.fromkeys(tasks, 0.0)
    for point in points:
        if point.mixture is not None:
            trained |= dict.fromkeys(point.mixture.active, point.epoch)
    left = [Exclusion(task=task, epoch=trained[task]) for task in tasks if task not in active]
    return tuple(sorted(left, key=lambda exclusion: exclusion.epoch))


def _made(story: Story) -> int:
    """How many times a sub-dataset was active, and then no longer, in the order in which the search went on."""
    count, before = 0, set(story.tasks)
    for segment in (segment for segment, _ in story.segments if segment.why != "refit"):
        now = set(segment.mixture.active)
        count, before = count + len(before - now), now
    return count


def same_model(one: Story, other: Story) -> bool:
    """Whether two finished runs of the same job and seed handed over the same model.

    They did if the same steps led to both, with the same losses, and the settings `BY_RUN` are the same. Where it says
    no, the models may still be the same.
    """
    return one.answer is not None and other.answer is not None and same_made(made_by(one), made_by(other))


Made: TypeAlias = tuple[object, Sequence[tuple[object, ...]]]
"""The settings `BY_RUN`, and the training steps and blends that made a model."""
BY_RUN = ("training.average", "training.average_warmup", "training.schedule")
"""The settings of training in which a run may differ from the plain SFT that it is compared with. Equal losses do not
prove that two models are the same where these differ: a loss is that of the weights before the last step and before
they are averaged."""


def same_made(one: Made | None, other: Made | None) -> bool:
    """Whether two models were made alike; both may be the base model, which nothing made."""
    return one is not None and other is not None and one[1] == other[1] and (one[0] == other[0] or not one[1])


def made_by(story: Story) -> Made:
    """What the final model of a finished run was made by, in order."""
    made = sorted(final_path(story).snapshots - {story.base.snapshot})
    return tuple(map(story.config.get, BY_RUN)), [
        (s.mixture, s.rollout, s.start, s.stop, s.reset_optimizer, s.anneal, s.blend, s.ties, s.teacher, o.train_loss)
        for s, o in (story.segments[number - 1] for number in made)
    ]


def outcome(story: Story) -> str:
    """What the exclusions of a run have to do with its final model, in one or two sentences.

    Empty for a method that excludes no sub-datasets, unless the final model is the base model.
    """
    path = final_path(story)
    if story.answer is None:
        return _so_far(path) if story.outlook.excludes else ""
    if story.answer.snapshot == story.base.snapshot:
        return _base_is_final(story)
    if not story.outlook.excludes:
        return ""
    is_plain, stopped = _is_plain(path, story.tasks), f"plain fine-tuning stopped at epoch {epochs(story.answer.epoch)}"
    if not path.made:
        return f"No sub-dataset was excluded{f': this is {stopped}' if is_plain else ''}."
    if path.excluded:
        return f"{_share(len(path.excluded), path.made)} in the final model: {_told(path.excluded)}."
    said = f"{_share(0, path.made)} in the final model{f': this is {stopped}' if is_plain else ''}."
    return f"{said} The search changed nothing." if is_plain else said


def _so_far(path: FinalPath) -> str:
    return f"So far: {_told(path.excluded)}." if path.excluded else "So far, no sub-dataset is excluded."


def few_candidates(story: Story) -> bool | None:
    """Whether only points where the search decides could become the final model, not every evaluation; None if it was
    not chosen by its score."""
    if story.brief.select == "last":
        return None
    return story.outlook.excludes and story.brief.candidates == "decisions"


def unequal_choice(few: Mapping[str, bool | None]) -> list[str]:
    """Says that some of these runs or methods chose their final model among fewer points than others, if so."""
    fewer, all_of_them = ([name for name, value in few.items() if value is which] for which in (True, False))
    if not fewer or not all_of_them:
        return []
    return [
        f"{FEWER} {listed(fewer)}: only points where the search decides (method.score_excluded: rollout); by "
        f"{listed(all_of_them)} among all evaluations. This favours the latter."
    ]


def _base_is_final(story: Story) -> str:
    if story.brief.select == "last":
        return "The final model is the base model: the search ended there."
    what = clean(story.selecting)
    needed = set(story.tasks) if story.aggregate is None else {story.aggregate}
    scored = [point for point in story.trail.points.values() if point.scores.keys() >= needed]
    if max(map(story.selects_by, scored)) > story.selects_by(story.base):
        return f"The final model is the base model: no point that could become the final model had a better {what}."
    return f"The final model is the base model: no training improved the {what}."


def _is_plain(path: FinalPath, tasks: Sequence[Task]) -> bool:
    """Whether nothing but the whole mixture was trained, without a roll-back."""
    trained = path.points[1:]
    return {p.mixture for p in trained} == {Mixture(tasks=tuple(tasks))} and len({p.rollout for p in trained}) == 1


def _share(part: int, whole: int) -> str:
    """Subject and verb: `2 of 3 exclusions are`, `Neither of the 2 exclusions is`."""
    if whole == 1:
        return "The only exclusion is" if part else "The only exclusion is not"
    if not part:
        return f"{'Neither' if whole == 2 else 'None'} of the {whole} exclusions is"
    if part == whole:
        return "Both exclusions are" if whole == 2 else f"All {whole} exclusions are"
    return f"{part} of {whole} exclusions {'is' if part == 1 else 'are'}"


def _told(excluded: Sequence[Exclusion]) -> str:
    """`a and b, excluded at epoch 1.5; c, excluded at epoch 3`; the first few names only."""
    shown = excluded[:MOST_NAMES]
    groups = [(at, [e.task for e in same]) for at, same in groupby(shown, key=lambda e: epochs(e.epoch))]
    said = "; ".join(f"{listed([clean(task) for task in tasks])}, excluded at epoch {at}" for at, tasks in groups)
    more = len(excluded) - len(shown)
    return f"{said}; and {more} more" if more else said
