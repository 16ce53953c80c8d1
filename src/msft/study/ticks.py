"""`msft study ticks`: sensitivity to the evaluation interval, from half an epoch to an eighth (open in the paper)."""

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
    """mSFT with a smoothing window of the same number of epochs as in the configuration.

    `smooth` counts ticks: unchanged, it would make the window shorter when ticks are closer, and the study would
    compare windows instead of evaluation intervals.
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
        f"The smoothing window of mSFT is the same in epochs; in evaluations: {windows}.",
        f"From {max(EVERY):g} to {min(EVERY):g} epochs between evaluations, the final model of mSFT changes from "
        f"{scores[names['msft'][0]].mean:.2f} % to {scores[names['msft'][-1]].mean:.2f} %, that of SFT from "
        f"{scores[names['sft'][0]].mean:.2f} % to {scores[names['sft'][-1]].mean:.2f} %.",
        f"Compared with an evaluation every {every[finest]:g} epochs, the exclusions of mSFT move by "
        + ", ".join(f"{moved[n]:.2f} epochs at {every[n]:g}" for n in names["msft"] if n != finest)
        + " (mean over sub-datasets and seeds).",
    ]
    table = Table(
        title="Evaluation interval",
        columns=("run", "epochs between evaluations", "final model, %", "low", "high", "FLOPs against the cheapest",
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
            lines(scores), x, base, "base model", x_name="epochs between evaluations",
            y="macro-average of the final model, %")),
        Plot(title="Compute", caption="Training and scoring, relative to the cheapest run.", figure=against(
            lines(cost, 1 / unit), x, 1.0, "the cheapest", x_name="epochs between evaluations", y="FLOPs")),
    ]  # fmt: skip
    return Findings(title="How often to evaluate", said=said, plots=plots, tables=[table])


def _window(stories: Mapping[int, Story]) -> int:
    """Ticks in the centred mean on which the search found its peaks."""
    return next(iter(stories.values())).outlook.window


def _moved(runs: Runs, name: str, finest: str) -> float:
    """Mean absolute difference of the exclusion times to the run with the finest ticks, over sub-datasets and seeds."""
    seeds = [seed for seed in runs[name] if seed in runs[finest]]
    times = [(left_at(runs[name][seed]), left_at(runs[finest][seed])) for seed in seeds]
    return mean(abs(a[task] - b[task]) for a, b in times for task in a) if times else float("nan")
