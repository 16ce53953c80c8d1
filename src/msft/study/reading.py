"""Values that the studies read from finished runs: peaks, scores of the final model, costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TypeAlias

from msft.config.schema import Config
from msft.core.curves import peak
from msft.core.errors import RunError, complaint
from msft.core.headroom import WINDOW
from msft.core.vocabulary import Task
from msft.record.run_folder import RunFolder
from msft.report.cost import flops
from msft.report.story import Story, read_story
from msft.report.trail import Point
from msft.run.job import Job
from msft.study.grid import Grid, StudyFolder
from msft.study.statistics import Interval, t_interval

Runs: TypeAlias = Mapping[str, Mapping[int, Story]]
"""Variant to seed to the story of its finished run."""


def read_runs(folder: StudyFolder, grid: Grid) -> dict[str, dict[int, Story]]:
    """Every finished run; variants without a finished run are omitted."""
    found: dict[str, dict[int, Story]] = {}
    for variant in grid.variants:
        for seed in grid.seeds:
            if (story := finished(folder.run(variant, seed))) is not None:
                found.setdefault(variant.name, {})[seed] = story
    return found


def finished(run: RunFolder) -> Story | None:
    """The story of a run that has its summary; None if it has none yet. Raises RunError if its journal ends before."""
    if not run.summary.exists():
        return None
    story = read_story(run)
    if story.answer is None:
        found = "the run has a summary, but its journal ends before the end of the run"
        fix = f"restore {run.journal.name} from a copy, or remove {run.summary.name} and repeat the command that "
        raise RunError(complaint(found, fix + "started the study: it continues the run", file=run.path))
    return story


def answer_score(story: Story) -> float:
    """Macro-average of the final model, in %: on the test split, or on the validation split if there is no test."""
    return 100 * mean(answer_reports(story).values())


def answer_reports(story: Story) -> Mapping[Task, float]:
    """The final model's metrics on the test split, or on the validation split if there is no test."""
    assert story.answer is not None, "only finished runs are read"
    return story.test["answer"].reports if "answer" in story.test else story.answer.reports


def total_flops(story: Story) -> float:
    return float(sum(flops(story).values()))


def over_seeds(stories: Mapping[int, Story], value: Callable[[Story], float]) -> Interval:
    """Mean and interval over seeds of `value(story)`."""
    return t_interval([value(story) for story in stories.values()])


def peak_epochs(points: Sequence[Point], tasks: Iterable[Task]) -> dict[Task, float]:
    """Epoch of the earliest best smoothed search score of each sub-dataset along one roll-out."""
    found = {}
    for task in tasks:
        scored = [point for point in points if task in point.scores]
        found[task] = scored[peak([point.scores[task] for point in scored], WINDOW).tick].epoch
    return found


def mixture_peak(points: Sequence[Point], tasks: Sequence[Task]) -> float:
    """Epoch of the best smoothed macro-average."""
    scored = [point for point in points if all(task in point.scores for task in tasks)]
    return scored[peak([mean(point.scores[t] for t in tasks) for point in scored], WINDOW).tick].epoch


def left_at(story: Story) -> dict[Task, float]:
    """Position at which each sub-dataset was excluded; the end of the search if it was not excluded."""
    times = dict.fromkeys(story.tasks, story.tip.epoch)
    for rollout in story.rollouts:
        times |= dict.fromkeys(rollout.excluded, rollout.went_on.epoch)
    return times


@dataclass(frozen=True)
class Evidence:
    """The finished runs of a study."""

    config: Config
    runs: Runs
    job: Callable[[str, int], Job]
    """The job of a variant and a seed, to repeat the run and measure what it did not record."""
