"""Results of a study's runs as arrays: read from the run folders and checked to be comparable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import Task
from msft.core.wire import differences
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import mean
from msft.report.cost import ledger
from msft.report.final_path import Made, few_candidates, made_by
from msft.report.story import Story
from msft.report.summary import summary_of
from msft.report.words import measure_label
from msft.study.grid import StudyFolder
from msft.study.held_out import Curve, held_out
from msft.study.reading import finished
from msft.study.statistics import Array

V = TypeVar("V")
REPEAT = "remove the causes and repeat the same command; with other settings, name another --output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished run."""

    seed: int
    reports: Array
    """(T,): metrics of the final model on the sub-datasets of the comparison."""
    items: Sequence[Array]
    """Items per sub-dataset, whose mean is the metric; the metric itself if items were not recorded, or if each seed
    has its own."""
    validation: float | None
    """Macro-average of the final model over the same sub-datasets on the validation split."""
    best: Mapping[Task, float]
    """The best validation metric of each sub-dataset anywhere in the run."""
    plain: bool
    """Whether it is plain SFT."""
    searches: bool = False
    """Whether it may exclude sub-datasets."""
    made: Made | None = None
    """See `msft.report.final_path.made_by`."""
    few_candidates: bool | None
    """See `msft.report.final_path.few_candidates`."""
    summary: Mapping[str, Any]
    base: float = math.nan
    """Macro-average of the base model on the split of the comparison."""
    spent: tuple[float, float] = (0.0, 0.0)
    """FLOPs when the base model was scored, and at the end of the search; without the test."""
    held_out: Curve | None = None
    """See `msft.study.held_out`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All finished runs of a study, over the same sub-datasets and items."""

    split: Literal["test", "validation"]
    tasks: Sequence[Task]
    left_out: Sequence[Task]
    """Sub-datasets without a test split, if others have one."""
    measures: Mapping[Task, str]
    validation_items: Mapping[Task, int]
    base: Mapping[Task, float]
    """The base model's metrics on `split`."""
    base_validation: Mapping[Task, float]
    model: str
    runs: Mapping[str, Mapping[int, Run]]
    """Variant to seed to run."""
    failures: Mapping[str, Mapping[str, str]]
    redrawn: bool = False
    """Whether each seed has its own rows and splits; `base` and `base_validation` are then means over seeds."""
    began_with: Sequence[int] | None = None
    """The seeds of the first grid, if more were added later."""

    @property
    def best(self) -> dict[Task, float]:
        """The best validation metric of each sub-dataset in any run."""
        every = [run for runs in self.runs.values() for run in runs.values()]
        return {t: max((run.best[t] for run in every if t in run.best), default=math.nan) for t in self.tasks}

    @property
    def sizes(self) -> list[int]:
        """Items of each sub-dataset."""
        run = next(run for runs in self.runs.values() for run in runs.values())
        return [len(items) for items in run.items]


def read_results(folder: StudyFolder) -> Results:
    """Every finished run. Raises RunError if there is none, if one has a damaged journal, or if data or model differ
    between runs (between those of one seed, where each seed draws its own data)."""
    stories: dict[tuple[str, int], Story] = {}
    firsts: dict[int, tuple[RunFolder, Story]] = {}
    names, seeds = folder.recorded_grid()
    redrawn = folder.redrawn
    for name in names:
        for seed in seeds:
            run = folder.run(name, seed)
            if (story := finished(run)) is not None:
                first = firsts.setdefault(seed if redrawn else 0, (run, story))
                _check_same(first, (run, story))
                stories[name, seed] = story
    if not firsts:
        failed = [message for by_seed in folder.read_failures().values() for message in by_seed.values()]
        found = "no run of this study is finished" + (f"; one failed: {failed[0]}" if failed else "")
        raise RunError(complaint(found, REPEAT, file=folder.path))
    story = next(iter(firsts.values()))[1]
    tested = "answer" in story.test and bool(story.test["answer"].reports)
    split: Literal["test", "validation"] = "test" if tested else "validation"
    bases = [each.test["base"].reports if tested else each.base.reports for _, each in firsts.values()]
    entries = story.entries if tested else story.tasks
    tasks = [task for task in entries if task in bases[0]]
    runs: dict[str, dict[int, Run]] = {name: {} for name in names}
    for (name, seed), each in stories.items():
        if (made := _run(each, seed, tasks, tested, shared=not redrawn)) is not None:
            runs[name][seed] = made
    return Results(
        split=split,
        tasks=tasks,
        left_out=[task for task in entries if task not in tasks],
        measures={task: measure_label(story, task) for task in tasks},
        validation_items=_by_entry(story, dict(zip(story.tasks, story.brief.validation_sizes, strict=True))),
        base={task: float(np.mean([base[task] for base in bases])) for task in tasks},
        base_validation=_by_entry(
            story,
            {
                task: float(np.mean([each.base.reports[task] for _, each in firsts.values()]))
                for task in story.base.reports
            },
        ),
        redrawn=redrawn,
        began_with=folder.began_with,
        model=str(story.header.get("model", {}).get("name", "")),
        runs=runs,
        failures=folder.read_failures(),
    )


def _by_entry(story: Story, of: Mapping[Task, V]) -> dict[Task, V]:
    """Values of the sub-datasets of the search, of a group for each of its data sets too."""
    return {**of, **{entry: of[task] for entry in story.entries if (task := story.task_of(entry)) in of}}


def _check_same(first: tuple[RunFolder, Story], other: tuple[RunFolder, Story]) -> None:
    """Raises RunError unless both runs have the same model and the same examples."""
    one, two = (story.header["fingerprints"] for _, story in (first, other))
    if changed := differences(one, two):
        found = f"it was run on other data or another model than {first[0].path}: {'; '.join(changed[:3])}"
        raise RunError(complaint(found, "restore them, or start a new study", file=other[0].path))


def _run(story: Story, seed: int, tasks: Sequence[Task], tested: bool, *, shared: bool) -> Run | None:
    """None if the final model is not scored on every sub-dataset. `shared`: all seeds have the same items."""
    answer = story.answer
    assert answer is not None, "only finished runs are read"
    reports = story.test["answer"].reports if tested else answer.reports
    if not all(math.isfinite(reports.get(task, math.nan)) for task in tasks):
        return None
    recorded = (story.test["answer"].items or {}) if tested and shared else {}
    base = story.test["base"].reports if tested else story.base.reports
    spent = ledger(story)
    best: dict[Task, float] = {}
    for place in story.trail.points.values():
        for task, report in place.reports.items():
            best[task] = max(report, best.get(task, -math.inf))
    return Run(
        seed=seed,
        reports=np.array([reports[task] for task in tasks]),
        items=[_items(recorded.get(task, ()), reports[task]) for task in tasks],
        validation=mean([answer.reports.get(story.task_of(task)) for task in tasks]),
        best=_by_entry(story, best),
        plain=story.outlook.plain,
        searches=story.outlook.excludes,
        made=made_by(story),
        few_candidates=few_candidates(story),
        summary=summary_of(story),
        base=float(np.mean([base[task] for task in tasks])),
        spent=(float(spent[0]), float(spent[-1])),
        held_out=held_out(story, list(dict.fromkeys(map(story.task_of, tasks)))),
    )


def _items(recorded: Sequence[float], report: float) -> Array:
    """Items whose mean is the metric; log-likelihoods are linearised if the metric is the exponential of their mean."""
    items = np.asarray(recorded, float)
    if len(items) and np.isfinite(items).all():
        centre = float(items.mean())
        if math.isclose(centre, report, abs_tol=1e-6):
            return items
        if math.isclose(math.exp(min(centre, 0.0)), report, abs_tol=1e-6):
            return np.asarray(report * (1 + items - centre))
    return np.array([report])
