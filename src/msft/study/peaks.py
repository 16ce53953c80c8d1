"""`msft study peaks`: when each sub-dataset peaks under plain fine-tuning (the paper's Figure 2)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from statistics import mean, pstdev

from msft.config.schema import Config
from msft.core.vocabulary import Task
from msft.study.draw import beside, by_task, dots, upright
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import with_method
from msft.study.reading import Evidence, mixture_peak, peak_epochs

DRAWS = 2000


def variants(config: Config) -> tuple[Variant, ...]:
    return (Variant(name="sft", config=with_method(config, "sft")),)


def find(evidence: Evidence) -> Findings:
    runs = evidence.runs
    stories = list(runs["sft"].values())
    tasks = stories[0].tasks
    peaks = [peak_epochs(story.trunk, tasks) for story in stories]
    whole = [mixture_peak(story.trunk, tasks) for story in stories]
    order = sorted(tasks, key=lambda task: mean(p[task] for p in peaks))
    distance = {t: mean(abs(p[t] - w) for p, w in zip(peaks, whole, strict=True)) for t in tasks}
    rows = [
        (t, mean(p[t] for p in peaks), min(p[t] for p in peaks), max(p[t] for p in peaks), distance[t]) for t in order
    ]
    traces = [
        dots(f"seed {seed}", [p[t] for t in order], beside(len(order), number, len(peaks)), number)
        for number, (seed, p) in enumerate(zip(runs["sft"], peaks, strict=True))
    ]
    drawn = by_task(traces, order, x="epoch of the peak")
    drawn["uprights"] = [upright(mean(whole))]
    said = [
        f"Sub-datasets peak {mean(distance.values()):.2f} epochs from the mixture's own peak on average (the paper, on "
        f"its models and data: 1.93); the mixture peaks at epoch {mean(whole):.2f}."
    ]
    if len(peaks) > 1:
        spread, chance, p = agreement(peaks)
        said.append(
            f"The standard deviation of the sub-datasets' mean peaks is {spread:.2f} epochs. If the peaks are permuted "
            f"at random among the sub-datasets within each seed, it is {chance:.2f} (p = {p:.3f}). A small p means "
            "that the time of the peak is a property of the sub-dataset, not chance."
        )
    table = Table(
        title="Peaks in epochs",
        columns=("sub-dataset", "mean", "earliest seed", "latest seed", "mean distance from the mixture's peak"),
        rows=rows,
    )
    caption = (
        "One dot per seed; dashed: the peak of the macro-average, mean over seeds. Peaks are found on means over three "
        "evaluations."
    )
    plot = Plot(title="When each sub-dataset peaks", figure=drawn, caption=caption)
    return Findings(title="Peaks under plain fine-tuning", said=said, plots=[plot], tables=[table])


def agreement(peaks: Sequence[Mapping[Task, float]]) -> tuple[float, float, float]:
    """Spread of the sub-datasets' mean peaks; its mean if labels are permuted within each seed; one-sided p."""
    tasks, dice = list(peaks[0]), random.Random(20)

    def spread(columns: Sequence[Sequence[float]]) -> float:
        return float(pstdev([mean(values) for values in zip(*columns, strict=True)]))

    found = spread([[p[t] for t in tasks] for p in peaks])
    dealt = [spread([dice.sample([p[t] for t in tasks], len(tasks)) for p in peaks]) for _ in range(DRAWS)]
    return found, mean(dealt), (1 + sum(d >= found - 1e-12 for d in dealt)) / (DRAWS + 1)
