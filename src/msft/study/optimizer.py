"""`msft study optimizer`: Adam's moments restored or reset at a roll-back."""

from __future__ import annotations

from statistics import mean

from msft.config.schema import Config
from msft.report.plots import figure
from msft.report.story import Story
from msft.study.compare_words import IDENTICAL
from msft.study.draw import by_task, dots, line, upright
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import search
from msft.study.reading import Evidence, answer_reports, answer_score
from msft.study.statistics import Interval, t_interval, t_test

KINDS = ("restore", "reset")


def variants(config: Config) -> tuple[Variant, ...]:
    return tuple(Variant(name=kind, config=search(config, optimizer=kind)) for kind in KINDS)


def find(evidence: Evidence) -> Findings:
    runs = evidence.runs
    seeds = [seed for seed in runs["restore"] if seed in runs["reset"]]
    pairs = [(runs["restore"][seed], runs["reset"][seed]) for seed in seeds]
    tasks = [task for task in pairs[0][0].tasks if task in answer_reports(pairs[0][0])]
    by = {t: t_interval([100 * (answer_reports(a)[t] - answer_reports(b)[t]) for a, b in pairs]) for t in tasks}
    differences = [answer_score(a) - answer_score(b) for a, b in pairs]
    total, p = t_interval(differences), t_test(differences)
    said = [
        f"Restoring the moments changes the final model by {total.mean:+.2f} points compared with resetting them"
        + (f" (95 % interval {total.low:+.2f} to {total.high:+.2f})" if total.low is not None else "")
        + (f", p = {p:.3f}." if p is not None else f"; not tested: {_untested(len(seeds))}."),
        "Mean training loss of the first segment after a roll-back: "
        + ", ".join(f"{kind} {_first_loss(runs[kind].values()):.3f}" for kind in KINDS) + ".",
    ]  # fmt: skip
    rows = [("macro-average", *_row(total), *(mean(answer_score(p[i]) for p in pairs) for i in (0, 1)))]
    rows += [(t, *_row(by[t]), *(100 * mean(answer_reports(p[i])[t] for p in pairs) for i in (0, 1))) for t in tasks]
    table = Table(
        title="Restore against reset",
        columns=("sub-dataset", "difference, points", "low", "high", "restore, %", "reset, %"),
        rows=rows,
    )
    trace = dots("restore − reset", [by[t].mean for t in tasks], list(range(len(tasks))), 0) | {
        "error_x": {"type": "data", "array": [0.0 if (v := by[t]).high is None else v.high - v.mean for t in tasks]}
    }
    drawn = by_task([trace], tasks, x="restore − reset, points", legend=False)
    del drawn["layout"]["xaxis"]["rangemode"]
    drawn["uprights"] = [upright(0.0)]
    plots = [
        Plot(title="Difference by sub-dataset", figure=drawn, caption="Mean over seeds with its 95 % interval."),
        Plot(title="Training loss", caption="The first seed: all segments in the order in which they ran.",
             figure=figure([_losses(kind, runs[kind][seeds[0]], i) for i, kind in enumerate(KINDS)], height=320,
                           x="steps trained, including discarded ones", y="training loss, nats per token",
                           legend=True)),
    ]  # fmt: skip
    return Findings(title="Adam's moments at a roll-back", said=said, plots=plots, tables=[table])


def _untested(seeds: int) -> str:
    return "that needs more than one seed" if seeds < 2 else f"the difference is {IDENTICAL}"


def _row(value: Interval) -> tuple[float, float | None, float | None]:
    return value.mean, value.low, value.high


def _first_loss(stories: object) -> float:
    """Mean training loss of the first segment of every roll-out except the first; NaN if there is none."""
    found = [
        outcome.train_loss
        for story in stories  # type: ignore[attr-defined]
        for segment, outcome in story.segments
        if segment.trains and segment.start == 0 and segment.rollout > 1 and outcome.train_loss is not None
    ]
    return mean(found) if found else float("nan")


def _losses(name: str, story: Story, number: int) -> dict[str, object]:
    steps, done, losses = [], 0, []
    for segment, outcome in story.segments:
        if segment.trains:
            done += segment.stop - segment.start
            steps.append(done)
            losses.append(outcome.train_loss)
    return line(name, steps, losses, number)
