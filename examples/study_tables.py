"""The tables of docs/results/compare.md, from what studies of `msft compare` have finished so far.

    python examples/study_tables.py FOLDER... [--against METHOD]

Prints Markdown. For each folder: every method, METHOD (default: msft) minus each other one, the spread across
sub-datasets, and whether sub-datasets peak apart under plain fine-tuning. For several folders, whose jobs differ in the
number of validation items alone: how good the search's decisions are with fewer items, judged by those with most.
Reads only; a study may still be running.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from msft.core.curves import peak, smoothed
from msft.report.story import Story, read_story
from msft.study.compare_markdown import table, to_markdown
from msft.study.compare_words import interval, p_value, with_reach
from msft.study.comparison import comparison
from msft.study.grid import StudyFolder
from msft.study.peaks import agreement
from msft.study.reading import WINDOW, left_at, mixture_peak, peak_epochs
from msft.study.results import read_results
from msft.study.statistics import Interval, t_interval, t_test

Stories = Mapping[int, Story]


@dataclass(frozen=True)
class Finished:
    """The finished runs of one study."""

    folder: StudyFolder

    @cached_property
    def stories(self) -> dict[str, dict[int, Story]]:
        names, seeds = self.folder.recorded_grid()
        runs = {name: {seed: self.folder.run(name, seed) for seed in seeds} for name in names}
        return {name: {s: read_story(r) for s, r in of.items() if r.summary.exists()} for name, of in runs.items()}

    @cached_property
    def items(self) -> float:
        """Validation items of a sub-dataset, on average."""
        story = next(story for stories in self.stories.values() for story in stories.values())
        return mean(story.brief.validation_sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--against", metavar="METHOD", default="msft")
    arguments = parser.parse_args()
    studies = [Finished(StudyFolder(folder)) for folder in arguments.folders]
    for study in studies:
        names, seeds = study.folder.recorded_grid()
        done = sum(len(stories) for stories in study.stories.values())
        print(f"## {study.items:g} validation items: {done} of {len(names) * len(seeds)} runs finished\n")
        data = comparison(read_results(study.folder), arguments.against)
        print(to_markdown(data))
        print(spreads(data))
        print(peaks_apart(study.stories.get("sft", {})))
    if len(studies) > 1:
        print("## Decisions by the number of validation items\n")
        print(decisions(sorted(studies, key=lambda study: study.items)))


def spreads(data: Mapping[str, Any]) -> str:
    """Standard deviation across sub-datasets: each other method minus the reference, paired by seed."""
    spread = {
        row["method"]: {run["seed"]: float(np.std(list(run["tasks"].values()))) for run in row["runs"]}
        for row in data["methods"]
    }
    reference = data["reference"]
    if reference not in spread:
        return ""
    rows = list[list[str]]()
    for name, by_seed in spread.items():
        shared = [seed for seed in by_seed if seed in spread[reference]]
        if name != reference and shared:
            gaps = [by_seed[seed] - spread[reference][seed] for seed in shared]
            rows.append([name, *told(t_interval(gaps)), p_value(t_test(gaps))])
    headings = [f"spread, minus {reference}", "difference", "95 %", "p"]
    return table(headings, rows) + "\n" if rows else ""


def told(gap: Interval) -> tuple[str, str]:
    """A difference of shares in points, and its interval."""
    return f"{100 * gap.mean:+.1f}".replace("-", "−"), interval({"low": gap.low, "high": gap.high})


def peaks_apart(sft: Stories) -> str:
    """Whether sub-datasets peak apart, beyond what chance gives (the paper's Figure 2)."""
    if len(sft) < 2:
        return ""
    stories = list(sft.values())
    tasks = stories[0].tasks
    peaks = [peak_epochs(story.trunk, tasks) for story in stories]
    whole = [mixture_peak(story.trunk, tasks) for story in stories]
    distance = t_interval([mean(abs(p[t] - w) for t in tasks) for p, w in zip(peaks, whole, strict=True)])
    spread, chance, p = agreement(peaks)
    rows = [[t, *(f"{v:.2f}" for v in ends([p[t] for p in peaks]))] for t in tasks]
    left, low, high = ends([below_their_peaks(story) for story in stories])
    return (
        table(["peak under sft, epoch", "mean", "low", "high"], sorted(rows, key=lambda row: float(row[1])))
        + f"\n\nDistance from the mixture's peak: {distance.mean:.2f} epochs ({distance.low:.2f} to "
        f"{distance.high:.2f}). Spread of the sub-datasets' mean peaks: {spread:.2f}; dealt at random within each of "
        f"{len(peaks)} seeds: {chance:.2f}; p = {p:.4f}. At the mixture's peak sub-datasets are {left:.2f} points of "
        f"search score below their own ({low:.2f} to {high:.2f}).\n"
    )


def below_their_peaks(story: Story) -> float:
    """Points of (smoothed) search score that one checkpoint for all gives away: what peaks apart have to offer."""
    curves = [[float(v) for v in smoothed([p.scores[t] for p in story.trunk], WINDOW)] for t in story.tasks]
    macro = [mean(values) for values in zip(*curves, strict=True)]
    return 100 * (mean(max(curve) for curve in curves) - max(macro))


def ends(values: Sequence[float]) -> tuple[float, ...]:
    found = t_interval(values)
    return found.mean, *(float("nan") if end is None else end for end in (found.low, found.high))


def decisions(studies: Sequence[Finished]) -> str:
    """What fewer validation items change. Of one training seed, all studies train the same until mSFT first excludes.

    `first decision the same`: which sub-datasets are excluded, and the evaluation that the search returns to. `peak
    moved`, `given away`: under sft, between a sub-dataset's peak on these items and on the most items: epochs, and
    points of the search score (on the most items) at the peak that fewer items saw. `dealt`: the same with the peaks
    dealt to the sub-datasets anew.
    """
    most = studies[-1]
    rows = []
    for study in studies:
        row = [f"{study.items:g}", str(len(study.stories.get("msft", {})))]
        row += [*first_decisions(study, most), *peaks_moved(study, most), *exclusions(study.stories.get("msft", {}))]
        rows.append(row)
    headings = ["items", "seeds", "first decision the same", "excluded: overlap", "peak moved, epochs", "dealt",
                "given away, points", "dealt", "exclusions: spread of means", "dealt", "p"]  # fmt: skip
    return table(headings, rows) + "\n"


def first_decisions(study: Finished, most: Finished) -> list[str]:
    pairs = paired(study.stories.get("msft", {}), most.stories.get("msft", {}))
    if not pairs or study is most:
        return ["–", "–"]
    found = [(first(one), first(two)) for one, two in pairs]
    same = [float(one == two) for one, two in found]
    overlap = [len(a & b) / len(a | b) if a | b else 1.0 for (a, _), (b, _) in found]
    return [f"{100 * mean(same):.0f} % of {len(same)}", with_reach(vars_of(overlap)) + " %"]


def vars_of(values: Sequence[float]) -> dict[str, float | None]:
    found = t_interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def first(story: Story) -> tuple[frozenset[str], float]:
    """Which sub-datasets are excluded first, and the position that the search returns to; none, where none ever is."""
    for rollout in story.rollouts:
        if rollout.excluded:
            return frozenset(rollout.excluded), rollout.went_on.epoch
    return frozenset(), story.tip.epoch


def peaks_moved(study: Finished, most: Finished) -> list[str]:
    pairs = paired(study.stories.get("sft", {}), most.stories.get("sft", {}))
    if not pairs or study is most:
        return ["–"] * 4
    moved, lost, moved_dealt, lost_dealt = [], [], [], []
    dice = np.random.default_rng(20)
    for one, two in pairs:
        tasks, epochs = one.tasks, [place.epoch for place in two.trunk]
        few = [peak([place.scores[t] for place in one.trunk], WINDOW).tick for t in tasks]
        curves = [[float(v) for v in smoothed([place.scores[t] for place in two.trunk], WINDOW)] for t in tasks]
        best = [curve.index(max(curve)) for curve in curves]

        def apart(ticks: Sequence[int], best: list[int] = best, epochs: list[float] = epochs) -> float:
            return mean(abs(epochs[a] - epochs[b]) for a, b in zip(ticks, best, strict=True))

        def given(ticks: Sequence[int], best: list[int] = best, curves: list[list[float]] = curves) -> float:
            return 100 * mean(c[b] - c[a] for c, a, b in zip(curves, ticks, best, strict=True))

        shuffled = [[few[i] for i in dice.permutation(len(few))] for _ in range(100)]
        moved.append(apart(few))
        lost.append(given(few))
        moved_dealt.append(mean(map(apart, shuffled)))
        lost_dealt.append(mean(map(given, shuffled)))
    return [f"{ends(moved)[0]:.2f} ± {ends(moved)[2] - ends(moved)[0]:.2f}", f"{mean(moved_dealt):.2f}",
            f"{ends(lost)[0]:.2f} ± {ends(lost)[2] - ends(lost)[0]:.2f}", f"{mean(lost_dealt):.2f}"]  # fmt: skip


def paired(one: Stories, two: Stories) -> list[tuple[Story, Story]]:
    """Runs of the same training seed, which must have trained the same: their first segments' losses are equal."""
    pairs = [(one[seed], two[seed]) for seed in one if seed in two]
    for a, b in pairs:
        if a.segments[0][1].train_loss != b.segments[0][1].train_loss:
            raise SystemExit("the studies trained differently: their jobs may differ in validation items alone")
    return pairs


def exclusions(msft: Stories) -> list[str]:
    """Whether when a sub-dataset is excluded is a property of it: as `peaks_apart`, for the search's own decisions."""
    if len(msft) < 2:
        return ["–"] * 3
    spread, chance, p = agreement([left_at(story) for story in msft.values()])
    return [f"{spread:.2f}", f"{chance:.2f}", f"{p:.4f}"]


if __name__ == "__main__":
    main()
