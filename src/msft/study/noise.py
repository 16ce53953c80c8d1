"""`msft study noise`: how much scores and decisions depend on the sample of validation items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from msft.config.schema import Config
from msft.core.search import Search
from msft.core.vocabulary import Outcome, Snapshot, Task
from msft.data.examples import Item, Measure, TaskData
from msft.engine.torch_engine import TorchEngine
from msft.methods import METHODS
from msft.report.plots import figure
from msft.report.story import Story
from msft.run.job import Job
from msft.study.draw import beside, by_task, dots, line
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.observe import observe
from msft.study.overrides import search, with_method
from msft.study.reading import Evidence
from msft.study.statistics import Array

RESAMPLES = 200
PARTS = (1 / 4, 1 / 2, 1.0)
"""Shares of the validation items."""
KINDS = ("control", "report", "loss")
"""Scores on which a search can act: the measure's own search score (soft accuracy for choices), the reported metric,
the loss of the right answer."""
SHOWN = {"control": "search score", "report": "test metric", "loss": "loss"}
"""Names of the kinds in sentences."""
Decision: TypeAlias = tuple[frozenset[Task], float]
"""The sub-datasets that are excluded, and the position to which the search returns."""
Drawn: TypeAlias = NDArray[np.int64]
"""(items,): indices of the items that were drawn."""


@dataclass(frozen=True)
class Items:
    """The scores of all validation items of one sub-dataset along one run; (ticks, items)."""

    values: Array
    logarithmic: bool
    """The score is the exponential of the items' mean instead of the mean."""

    def scores(self, drawn: Drawn) -> Array:
        """(ticks,): the score at each tick on these items; every tick has the same items."""
        means = self.values[:, drawn].mean(axis=1)
        return np.asarray(np.exp(means) if self.logarithmic else means)


def variants(config: Config) -> tuple[Variant, ...]:
    """Plain fine-tuning: it is identical to mSFT until mSFT's first exclusion."""
    return (Variant(name="sft", config=with_method(config, "sft")),)


def find(evidence: Evidence) -> Findings:
    params = search(evidence.config).method.params
    changed: dict[tuple[str, float], list[tuple[float, float]]] = {}
    errors: dict[tuple[str, Task], list[tuple[float, float]]] = {}
    for seed, story in evidence.runs["sft"].items():
        job = evidence.job("sft", seed)
        steps = [point.step for point in story.trunk]
        for kind, items in _items(job, story).items():
            draw = np.random.default_rng(seed)
            true = decision(story, steps, {t: each.scores(_every(each)) for t, each in items.items()}, params)
            for part in PARTS:
                found = []
                for _ in range(RESAMPLES):
                    scores = {t: each.scores(_drawn(draw, each, part)) for t, each in items.items()}
                    found.append(decision(story, steps, scores, params))
                who, whole = mean(_who(d) != _who(true) for d in found), mean(d != true for d in found)
                changed.setdefault((kind, part), []).append((who, whole))
            for task, each in items.items():
                errors.setdefault((kind, task), []).append(_signal(draw, each))
    return _findings(evidence, changed, errors)


def decision(story: Story, steps: Sequence[int], scores: Mapping[Task, Array], params: object) -> Decision | None:
    """The first exclusion of mSFT with these scores, and the position to which it would return.

    This runs the actual search; None if it excludes nothing.
    """

    def at(row: int) -> dict[Task, float]:
        return {task: float(values[row]) for task, values in scores.items()}

    base = replace(story.brief.base, scores=at(0), reports=at(0))
    ask = Search(METHODS["msft"], replace(story.brief, base=base, record=False, params=params))
    while (segment := ask.ask()) is not None:
        if not segment.trains:
            return frozenset(set(story.tasks) - set(segment.mixture.active)), segment.epoch
        row = min(range(len(steps)), key=lambda i: abs(steps[i] - segment.stop))
        known = {task: score for task, score in at(row).items() if task in segment.score}
        ask.tell(Outcome(snapshot=ask.number, scores=known, reports=known))
    return None


def _who(decision: Decision | None) -> frozenset[Task]:
    return frozenset() if decision is None else decision[0]


def _items(job: Job, story: Story) -> dict[str, dict[Task, Items]]:
    """Kind to sub-dataset to its items' scores at every tick; kinds that would equal another are omitted."""
    parts = job.data
    asked = {task: (part.validation, replace(part.measure, control="control")) for task, part in parts.items()}
    choices = {task: _right_answers(part) for task, part in parts.items() if part.measure.name == "choice"}

    def measure(engine: TorchEngine, snapshot: Snapshot) -> dict[str, dict[Task, tuple[float, ...]]]:
        found = engine.score_items(snapshot, asked)
        losses = engine.score_items(snapshot, choices) if choices else {}
        return {
            "control": {task: scores.items for task, scores in found.items()},
            "report": {task: scores.reported for task, scores in found.items()},
            "loss": {task: (losses.get(task) or scores).items for task, scores in found.items()},
        }

    seen = observe(job, story, measure)
    rows = [seen[point.snapshot] for point in story.trunk]
    kinds = KINDS if choices else KINDS[:2]  # without choices the search score is the loss
    return {
        kind: {
            task: Items(np.array([row[kind][task] for row in rows]), _logarithmic(kind, part.measure))
            for task, part in parts.items()
        }
        for kind in kinds
    }


def _logarithmic(kind: str, measure: Measure) -> bool:
    return kind == "loss" or measure.name == "loss" or (kind == "control" and measure.name != "choice")


def _right_answers(part: TaskData) -> tuple[Sequence[Item], Measure]:
    """The right options alone, scored by their loss."""
    items = [Item(options=(item.options[item.answer],)) for item in part.validation]
    return items, Measure(name="loss")


def _every(items: Items) -> Drawn:
    return np.arange(items.values.shape[1])


def _drawn(draw: np.random.Generator, items: Items, part: float) -> Drawn:
    """This share of the items, drawn with replacement."""
    count = items.values.shape[1]
    return np.asarray(draw.integers(0, count, max(1, round(part * count))))


def _signal(draw: np.random.Generator, items: Items) -> tuple[float, float]:
    """Standard error of the score at the curve's best tick, and the rise from the base model to that tick."""
    curve = items.scores(_every(items))
    best = int(curve.argmax())
    resampled = [items.scores(_drawn(draw, items, 1.0))[best] for _ in range(RESAMPLES)]
    return float(np.std(resampled)), float(curve[best] - curve[0])


def _findings(
    evidence: Evidence,
    changed: Mapping[tuple[str, float], Sequence[tuple[float, float]]],
    errors: Mapping[tuple[str, Task], Sequence[tuple[float, float]]],
) -> Findings:
    story = next(iter(evidence.runs["sft"].values()))
    kinds = [kind for kind in KINDS if any(key[0] == kind for key in changed)]
    items = mean(story.brief.validation_sizes)
    who = {kind: [100 * mean(who for who, _ in changed[kind, part]) for part in PARTS] for kind in kinds}
    share = {kind: [100 * mean(whole for _, whole in changed[kind, part]) for part in PARTS] for kind in kinds}
    said = [
        f"If the same number of validation items is resampled ({items:g} per sub-dataset), mSFT's first decision (the "
        "excluded sub-datasets and the evaluation to which it returns) changes in "
        + ", ".join(f"{share[k][-1]:.0f} % of the draws when it acts on the {SHOWN[k]}" for k in kinds)
        + ", that is, by chance; the excluded sub-datasets change in "
        + ", ".join(f"{who[k][-1]:.0f} % ({SHOWN[k]})" for k in kinds)
        + ".",
    ]
    ratio = {(k, t): mean(rise / error if error > 0 else 0.0 for error, rise in errors[k, t])
             for k, t in errors}  # fmt: skip
    rows = [
        (t, k, 100 * mean(e for e, _ in errors[k, t]), 100 * mean(r for _, r in errors[k, t]), ratio[k, t])
        for t in story.tasks
        for k in kinds
    ]
    decisions = [(k, items * p, who[k][i], share[k][i]) for k in kinds for i, p in enumerate(PARTS)]
    tables = [
        Table(
            title="Standard errors",
            columns=(
                "sub-dataset", "score", "standard error, points", "rise over the base, points",
                "rise in standard errors",
            ),
            rows=rows,
        ),
        Table(
            title="Decisions",
            columns=("score", "validation items", "excluded sub-datasets change, %", "decisions that change, %"),
            rows=decisions,
        ),
    ]  # fmt: skip
    order = sorted(story.tasks, key=lambda t: -ratio["control", t])
    traces = [
        dots(SHOWN[k], [ratio[k, t] for t in order], beside(len(order), i, len(kinds)), i) for i, k in enumerate(kinds)
    ]
    signal = by_task(traces, order, x="rise from the base model to the best evaluation, in standard errors")
    lines = [line(SHOWN[k], [items * part for part in PARTS], share[k], i) for i, k in enumerate(kinds)]
    over = figure(lines, height=320, x="validation items per sub-dataset", y="decisions that change, %", legend=True)
    over["layout"]["yaxis"]["range"] = [0, 105]
    plots = [
        Plot(title="How often the decision changes", figure=over,
             caption=f"{RESAMPLES} draws with replacement per seed and number of items; all evaluations share a draw."),
        Plot(title="Signal and noise", figure=signal,
             caption="Rise of the curve relative to the standard error from sampling the items. Higher is better."),
    ]  # fmt: skip
    return Findings(title="Dependence on the validation items", said=said, plots=plots, tables=tables)
