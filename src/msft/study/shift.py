"""`msft study shift`: how the remaining peaks move when one sub-dataset is left out (the paper's Figure 3)."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.core.vocabulary import Task
from msft.report.plots import figure
from msft.report.story import Story
from msft.study.draw import dots, heatmap
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import with_datasets, with_method
from msft.study.reading import Evidence, peak_epochs

WITHOUT = "without_"


def variants(config: Config) -> tuple[Variant, ...]:
    """The whole mixture, and the mixture without each data set in turn."""
    if len(config.datasets) < 2:
        raise ConfigError(complaint("this study needs two data sets or more", "add data sets", field="datasets"))
    whole = with_method(config, "sft")
    rest = {d.id: tuple(other for other in config.datasets if other is not d) for d in config.datasets}
    return (
        Variant(name="all", config=whole),
        *(Variant(name=f"{WITHOUT}{number}", config=with_datasets(whole, kept)) for number, kept in
          enumerate(rest.values())),
    )  # fmt: skip


def find(evidence: Evidence) -> Findings:
    config, runs = evidence.config, evidence.runs
    whole = {seed: _peaks(story) for seed, story in runs["all"].items()}
    tasks = list(next(iter(whole.values())))
    left_out = {f"{WITHOUT}{number}": dataset.id for number, dataset in enumerate(config.datasets)}
    moved: dict[str, dict[Task, list[float]]] = {}
    for name, out in left_out.items():
        for seed, story in runs.get(name, {}).items():
            if seed not in whole:
                continue
            for task, epoch in _peaks(story).items():
                moved.setdefault(out, {}).setdefault(task, []).append(epoch - whole[seed][task])
    shifts = {out: mean(abs(s) for shift in by_task.values() for s in shift) for out, by_task in moved.items()}
    alike = [abs(a[t] - b[t]) for a, b in combinations(whole.values(), 2) for t in tasks]
    outs = [out for out in left_out.values() if out in moved]
    said = [
        f"Leaving one sub-dataset out moves the peaks of the others by {mean(shifts.values()):.2f} epochs on average "
        "(the paper: 0.91).",
        f"Between two seeds of the same mixture they move by {mean(alike):.2f} epochs: only a larger shift is an "
        "effect of leaving out." if alike else "With one seed, the share of chance in this cannot be estimated.",
    ]  # fmt: skip
    table = Table(
        title="Mean shift of the other sub-datasets' peaks, in epochs",
        columns=("left out", "mean absolute shift", "mean shift", "earlier, % of pairs", "later, % of pairs"),
        rows=[
            (out, shifts[out], mean(every := [s for shift in moved[out].values() for s in shift]),
             100 * mean(s < 0 for s in every), 100 * mean(s > 0 for s in every))
            for out in outs
        ],
    )  # fmt: skip
    by_column = {task: [mean(moved[out][task]) if task in moved[out] else None for task in tasks] for out in outs
                 for task in [out]}  # fmt: skip
    reach = max([abs(v) for row in by_column.values() for v in row if v is not None] or [1.0]) or 1.0
    plots = [
        Plot(
            title="Where each peak goes",
            figure=heatmap([by_column.get(task, [None] * len(tasks)) for task in tasks], tasks, unit="epochs",
                           reach=reach),
            caption="Row: sub-dataset left out. Column: sub-dataset whose peak moved. Red: later, blue: earlier; "
            "mean over seeds.",
        ),
        Plot(
            title="Shift and chance",
            figure=_chance(moved, alike),
            caption="Cumulative share of pairs whose peak moved by at most this much: with one sub-dataset left out, "
            "and between two seeds of the same mixture.",
        ),
    ]  # fmt: skip
    return Findings(title="How peaks move when one sub-dataset is left out", said=said, plots=plots, tables=[table])


def _chance(moved: dict[str, dict[Task, list[float]]], alike: list[float]) -> dict[str, object]:
    every = sorted(abs(s) for by_task in moved.values() for shift in by_task.values() for s in shift)
    series = [("one left out", every), ("another seed", sorted(alike))]
    traces = [
        dots(name, values, [100 * (i + 1) / len(values) for i in range(len(values))], number, size=5)
        | {"mode": "lines", "line": {"shape": "hv", "width": 2}}
        for number, (name, values) in enumerate(series)
        if values
    ]
    return figure(traces, height=320, x="shift of a peak, epochs", y="pairs with at most this shift, %", legend=True)


def _peaks(story: Story) -> dict[Task, float]:
    """Peaks, rounded to whole ticks: a tick is at a whole step, whose epoch depends on the size of the mixture."""
    every = story.brief.eval_every
    return {task: every * round(epoch / every) for task, epoch in peak_epochs(story.trunk, story.tasks).items()}
