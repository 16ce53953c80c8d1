"""Several finished runs side by side: scores, costs, and tests of their differences (design 5).

Tests are paired over the test items that two runs share, so they compare these two models only: another seed of the
same methods would give other models. A claim about methods needs several seeds of each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import Task
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import mean
from msft.report.cost import flops
from msft.report.final_path import few_candidates, unequal_choice
from msft.report.intervals import Change, Interval, of_average, of_change
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story
from msft.report.summary import disk
from msft.report.words import (
    NOT_KNOWN,
    clean,
    difference,
    duration,
    listed,
    measure_label,
    mixed,
    p_value,
    percent,
    scaled,
    span,
)

MODELS_ONLY = (
    "Intervals (95 %) and p-values are paired over the test items. They cover test-set "
    "sampling only: another seed gives other models, so a claim about methods needs several seeds."
)
MANY_SEEDS = (
    "They are compared here as single models, and their differences are due to chance. To test methods over several "
    "seeds, use msft compare (--methods, --seeds)."
)
VALIDATION = (
    "No run has test scores: these are validation scores, by which the runs chose their final models, so nothing is "
    "tested. Expect lower scores on new data, and give a test split."
)
OTHER_DATA = "the rows (training rows included), their tokens or the scorer differ between runs"
"""A journal has one fingerprint of all splits of a sub-dataset, so that equal test items cannot be told."""
SEED_KEYS = ("training.seed", "data.seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run and its name in the comparison."""

    name: str
    story: Story
    split: Literal["test", "validation"] = "test"
    """Whose scores are compared; see `on_one_split`."""

    @property
    def names(self) -> Sequence[Task]:
        """What may have a score: on the validation split a group, on the test split each of its data sets."""
        return self.story.entries if self.split == "test" else self.story.tasks

    @property
    def scores(self) -> Mapping[Task, float]:
        """Metrics of the final model on the sub-datasets, in [0, 1]; empty if there are none (yet)."""
        answer = self.story.test.get("answer") if self.split == "test" else self.story.answer
        return {} if answer is None else {task: x for task, x in answer.reports.items() if task in self.names}

    def items(self, task: Task) -> Sequence[float]:
        """Test scores; none on validation, whose items chose the models that they would compare."""
        answer = self.story.test.get("answer") if self.split == "test" else None
        return () if answer is None or answer.items is None else answer.items.get(task, ())

    def same_items(self, other: Run, task: Task) -> bool:
        """Whether both runs scored the same items of a sub-dataset, one by one."""
        return self.same_data(other, task) and len(self.items(task)) == len(other.items(task)) > 1

    def same_data(self, other: Run, task: Task) -> bool:
        """Whether both runs have the same rows in the same splits of a sub-dataset."""
        marks = [run.story.header.get("fingerprints", {}).get("data", {}) for run in (self, other)]
        names = [run.story.task_of(task) for run in (self, other)]
        prints = [mark.get(name) if isinstance(mark, dict) else mark for mark, name in zip(marks, names, strict=True)]
        return bool(prints[0] == prints[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Difference between two final models, on one sub-dataset or in the macro-average. In [-1, 1]."""

    difference: float | None
    change: Change | None
    """The same with its intervals, paired over the items; None if the items differ or are unknown."""

    @property
    def interval(self) -> Interval | None:
        """95 % interval."""
        return None if self.change is None else self.change.interval

    @property
    def p(self) -> float | None:
        """Two-sided."""
        return None if self.change is None else self.change.p


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """The runs in these folders and their subfolders; the reference run comes first.

    The reference is the first finished run of plain fine-tuning, or else the first finished run. Raises RunError if a
    folder holds no run.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        here = [path] if RunFolder(path).exists else sorted(file.parent for file in path.rglob("journal.jsonl"))
        if not here:
            fix = "name the folder of a run, or a folder that contains run folders"
            raise RunError(complaint("this folder holds no run", fix, file=path))
        folders |= dict.fromkeys(here)
    found = list(folders)
    runs = [Run(name=name, story=read_story(RunFolder(f))) for name, f in zip(_names(found), found, strict=True)]
    plain = [run for run in runs if run.story.outlook.plain]
    reference = next((run for run in (*plain, *runs) if run.story.answer is not None), runs[0])
    return on_one_split([reference, *(run for run in runs if run is not reference)])


def on_one_split(runs: Sequence[Run]) -> list[Run]:
    """The runs, to be compared on the test split or, if none of them has test scores, on the validation split."""
    tested = any(replace(run, split="test").scores for run in runs)
    return [replace(run, split="test" if tested else "validation") for run in runs]


def _names(folders: Sequence[Path]) -> list[str]:
    """The parts in which the paths differ."""
    parts = [folder.resolve().parts for folder in folders]
    if len(parts) == 1:
        return [parts[0][-1]]
    shared = 0
    while len({part[: shared + 1] for part in parts}) == 1:
        shared += 1
    return ["/".join(part[shared:]) or part[-1] for part in parts]


def tasks_of(runs: Sequence[Run]) -> list[Task]:
    """The sub-datasets for which one of the runs has a score, in the order of the first run that has each; all, if no
    run has scores yet."""
    every = _every_task(runs)
    return [task for task in every if any(task in run.scores for run in runs)] or every


def _every_task(runs: Sequence[Run]) -> list[Task]:
    return list(dict.fromkeys(task for run in runs for task in run.names))


def gap(run: Run, reference: Run, task: Task) -> Gap:
    """`run` minus `reference` on one sub-dataset."""
    now, was = run.scores.get(task), reference.scores.get(task)
    if now is None or was is None or not _one_measure([run, reference], task):
        return Gap(difference=None, change=None)
    paired = run.same_items(reference, task)
    change = of_change(reference.items(task), run.items(task), was, now) if paired else None
    return Gap(difference=now - was, change=change)


def macro_gap(run: Run, reference: Run) -> Gap:
    """`run` minus `reference` in the macro-average over the sub-datasets that have scores in either run."""
    gaps = [gap(run, reference, task) for task in tasks_of([run, reference])]
    parts = [each.change for each in gaps if each.change is not None]
    change = of_average(parts) if parts and len(parts) == len(gaps) else None
    return Gap(difference=mean([each.difference for each in gaps]), change=change)


def _one_measure(runs: Sequence[Run], task: Task) -> bool:
    """Whether the scores of a sub-dataset mean the same in all of these runs."""
    return len({measure_label(run.story, task) for run in runs}) == 1


def macro(run: Run, tasks: Sequence[Task]) -> float | None:
    """The average of a run over its own among `tasks`: those for which it or a run beside it has a score."""
    return mean([run.scores.get(task) for task in run.names if task in tasks])


def overview(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Headings and one row per run: method, result, cost."""
    names = ["run", "method", "seed", f"{runs[0].split}, %", "worst", "compute", "time", "spread", "snapshots, at most"]
    tasks = tasks_of(runs)
    return names, [_row(run, tasks) for run in runs]


def _row(run: Run, tasks: Sequence[Task]) -> list[str]:
    story, scores = run.story, list(run.scores.values())
    average = macro(run, tasks)
    centre = fmean(scores) if scores else 0.0
    spread = math.sqrt(math.fsum((s - centre) ** 2 for s in scores) / len(scores)) if scores else None
    spent = seconds_of(story).total
    return [
        clean(run.name),
        clean(str(story.header.get("method", ""))),
        str(story.brief.seed),
        percent(average) if story.answer else "not finished",
        percent(min(scores, default=None)),
        scaled(sum(flops(story).values()), "FLOPs"),
        duration(spent) if spent else NOT_KNOWN,
        percent(spread),
        scaled(disk(story)["peak_bytes"], "B"),
    ]


def scores(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Headings and one row per sub-dataset: the metrics of every run in %, the macro-average last."""
    tasks = tasks_of(runs)
    rows = [[clean(task), *(percent(run.scores.get(task)) for run in runs)] for task in tasks]
    averages = ["average", *(percent(macro(run, tasks)) for run in runs)]
    return ["sub-dataset", *(clean(run.name) for run in runs)], [*rows, averages]


def against(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Headings and one row per run except the first, which is the reference."""
    reference = runs[0]
    names = ["run", "difference", "95 % interval", "p", "better / worse"]
    if reference.split == "validation":
        return names[:2], [_against(run, reference)[:2] for run in runs[1:]]
    return names, [_against(run, reference) for run in runs[1:]]


def _against(run: Run, reference: Run) -> list[str]:
    whole = macro_gap(run, reference)
    interval = span(*whole.interval or (None, None))
    gaps = [gap(run, reference, task) for task in tasks_of([run, reference])]
    sure = [each.difference or 0.0 for each in gaps if each.p is not None and each.p < 0.05]
    counted = f"{sum(d > 0 for d in sure)} / {sum(d < 0 for d in sure)} of {len(gaps)}"
    known = any(each.p is not None for each in gaps)
    return [
        clean(run.name), difference(whole.difference), interval, p_value(whole.p), counted if known else NOT_KNOWN,
    ]  # fmt: skip


def only_seeds(runs: Sequence[Run]) -> list[str]:
    """Says which runs are the same job with other seeds: nothing here averages over seeds."""
    jobs: dict[str, list[Run]] = {}
    for run in runs:
        config = {key: v for key, v in run.story.config.items() if key not in SEED_KEYS}
        jobs.setdefault(json.dumps([run.story.header.get("method"), config], sort_keys=True), []).append(run)
    same = [job for job in jobs.values() if len({run.story.brief.seed for run in job}) > 1]
    return [f"{', '.join(clean(run.name) for run in job)}: the same job with other seeds. {MANY_SEEDS}" for job in same]


def wary(runs: Sequence[Run]) -> list[str]:
    """Reasons why these runs cannot be compared, or only in part."""
    said = [
        f"{clean(run.name)} is not finished: its final model has no scores." for run in runs if run.story.answer is None
    ]
    said += [VALIDATION] if runs[0].split == "validation" else []
    tasks = tasks_of(runs)
    said += _of_averages(runs, tasks) + _of_pairs(runs, tasks)
    if left_out := [task for task in _every_task(runs) if task not in tasks]:
        said.append(f"Not in these tables, because they have no test split: {listed(left_out)}.")
    models: dict[Any, None] = {run.story.header.get("fingerprints", {}).get("model"): None for run in runs}
    if len(models) > 1:
        said.append("The runs did not start from the same base model.")
    finished = {run.name: few_candidates(run.story) for run in runs if run.story.answer is not None}
    return said + unequal_choice(finished) + only_seeds(runs)


def _of_averages(runs: Sequence[Run], tasks: Sequence[Task]) -> list[str]:
    """What their averages are of, and which run has none."""
    said: dict[str, None] = {}
    for run in runs:
        said |= dict.fromkeys(mixed(measure_label(run.story, task) for task in run.names if task in tasks))
    for run in runs:
        if run.scores and macro(run, tasks) is None:
            lacking = [task for task in run.names if task in tasks and task not in run.scores]
            said[f"{clean(run.name)} has no average, as it has no score of {listed(lacking)}."] = None
    return list(said)


def _of_pairs(runs: Sequence[Run], tasks: Sequence[Task]) -> list[str]:
    """Why sub-datasets that both have are not compared with those of the reference, or not item by item."""
    first, validation, said = runs[0], runs[0].split == "validation", []
    beside = {task: [run for run in runs[1:] if task in run.scores] for task in tasks if task in first.scores}
    measured = [task for task, others in beside.items() if not _one_measure([first, *others], task)]
    differing = [task for task, others in beside.items() if not all(run.same_data(first, task) for run in others)]
    unknown = [task for task, others in beside.items() if not all(run.same_items(first, task) for run in others)]
    unknown = [] if validation else [task for task in unknown if task not in differing]
    if measured:
        said.append(f"No difference is given where runs have different measures: {listed(measured)}.")
    if differing:
        found = f"{OTHER_DATA}: {listed(differing)}"
        said.append(f"{found[0].upper()}{found[1:]}." if validation else f"Not paired, because {found}.")
    if unknown:
        said.append(f"Not paired, because scores of single test items are not recorded: {listed(unknown)}.")
    return said
