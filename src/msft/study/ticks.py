"""`msft study ticks`: how often to look, from half an epoch to an eighth (the sensitivity that the paper left open)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from msft.config.schema import Config
from msft.report.plots import Figure
from msft.report.story import Story
from msft.study.draw import against, intervals
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import search, with_method
from msft.study.reading import Evidence, Runs, answer_score, left_at, over_seeds, total_flops
from msft.study.statistics import Interval

EVERY = (0.5, 0.25, 0.125)
"""Epochs between ticks."""


def variants(config: Config) -> tuple[Variant, ...]:
    return (
        *(Variant(name=f"sft_{every:g}", config=with_method(config, "sft", eval_every=every)) for every in EVERY),
        *(Variant(name=f"msft_{every:g}", config=_search(config, every)) for every in EVERY),
    )


def _search(config: Config, every: float) -> Config:
    """mSFT whose smoothing reaches as many epochs to either side as the configuration's, not as many ticks.

    `smooth` counts ticks: left alone, it would shorten the window with the distance between ticks, and the study would
    compare two windows instead of two ways of looking.
    """
    own = search(config).method
    reach = (own.params.smooth - 1) / 2 * own.eval_every
    return search(config, eval_every=every, smooth=1 + 2 * round(reach / every))


def find(evidence: Evidence) -> Findings:
    runs = evidence.runs
    every = {name: float(name.split("_")[1]) for name in runs}
    scores = {name: over_seeds(runs[name], answer_score) for name in runs}
    cost = {name: over_seeds(runs[name], total_flops) for name in runs}
    names = {method: [name for name in runs if name.startswith(method)] for method in ("sft", "msft")}
    unit = min(interval.mean for interval in cost.values())
    finest = min(names["msft"], key=lambda name: every[name])
    moved = {name: _moved(runs, name, finest) for name in names["msft"]}
    rows = [
        (name, every[name], scores[name].mean, scores[name].low, scores[name].high, cost[name].mean / unit,
         moved.get(name))
        for name in runs
    ]  # fmt: skip
    windows = ", ".join(f"{_window(runs[n])} at {every[n]:g}" for n in names["msft"])
    said = [
        f"The window under which mSFT reads a peak stays the same in epochs; in ticks: {windows}.",
        f"From {max(EVERY):g} to {min(EVERY):g} epochs between ticks the answer of mSFT goes from "
        f"{scores[names['msft'][0]].mean:.2f} % to {scores[names['msft'][-1]].mean:.2f} %, that of SFT from "
        f"{scores[names['sft'][0]].mean:.2f} % to {scores[names['sft'][-1]].mean:.2f} %.",
        f"Against ticks of {every[finest]:g}, the exclusions of mSFT move by "
        + ", ".join(f"{moved[n]:.2f} epochs at {every[n]:g}" for n in names["msft"] if n != finest)
        + " (mean over sub-datasets and seeds).",
    ]
    table = Table(
        title="Ticks",
        columns=("run", "epochs between ticks", "answer, %", "low", "high", "FLOPs against the cheapest",
                 "exclusions moved by, epochs"),
        rows=rows,
    )  # fmt: skip

    def lines(values: dict[str, Interval], scale: float = 1.0) -> list[Figure]:
        return [
            intervals(method, [every[n] for n in chosen], [values[n] for n in chosen], number, scale=scale)
            for number, (method, chosen) in enumerate(names.items())
        ]

    base = 100 * mean(mean(story.test["base"].reports.values() if story.test else story.base.reports.values())
                      for stories in runs.values() for story in stories.values())  # fmt: skip
    x = [every[name] for name in runs]
    plots = [
        Plot(title="Score", caption="Mean over seeds with its 95 % interval.", figure=against(
            lines(scores), x, base, "base model", x_name="epochs between ticks",
            y="macro-average of the answer, %")),
        Plot(title="Compute", caption="Training and scoring together, against the cheapest run.", figure=against(
            lines(cost, 1 / unit), x, 1.0, "the cheapest", x_name="epochs between ticks", y="FLOPs")),
    ]  # fmt: skip
    return Findings(title="How often to look", said=said, plots=plots, tables=[table])


def _window(stories: Mapping[int, Story]) -> int:
    """Ticks in the centred mean under which the search read its peaks."""
    return next(iter(stories.values())).outlook.window


def _moved(runs: Runs, name: str, finest: str) -> float:
    """Mean absolute difference of the exclusion times to those with the finest ticks, over sub-datasets and seeds."""
    seeds = [seed for seed in runs[name] if seed in runs[finest]]
    times = [(left_at(runs[name][seed]), left_at(runs[finest][seed])) for seed in seeds]
    return mean(abs(a[task] - b[task]) for a, b in times for task in a) if times else float("nan")
