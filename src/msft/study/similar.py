"""`msft study similar`: sub-datasets that converge alike. Every one is cut into two halves; do the twins part?"""

from __future__ import annotations

from itertools import combinations
from statistics import mean

from msft.config.schema import Config, DatasetConfig
from msft.core.errors import ConfigError, complaint
from msft.report.plots import figure
from msft.report.story import Story
from msft.study.draw import GREY, dots
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import horizon, search, with_datasets
from msft.study.reading import Evidence, answer_score, left_at, over_seeds, total_flops

TWINS = (".1", ".2")


def variants(config: Config) -> tuple[Variant, ...]:
    """As configured, and with two sub-datasets of half the size in the place of each."""
    horizon(config)
    sizeless = [d.id for d in config.datasets if d.max_samples is None or d.max_samples < 2]
    if sizeless:
        found = f"{', '.join(sizeless)}: there is no max_samples of 2 or more"
        raise ConfigError(complaint(found, "give max_samples, which this study halves", field="datasets"))
    twins = tuple(_half(dataset, end) for dataset in config.datasets for end in TWINS)
    whole = search(config)
    return Variant(name="whole", config=whole), Variant(name="twins", config=with_datasets(whole, twins))


def _half(dataset: DatasetConfig, end: str) -> DatasetConfig:
    """A sample of half the size; the two are drawn apart, and may share a few examples."""
    assert dataset.max_samples is not None
    return dataset.model_copy(update={"id": dataset.id + end, "max_samples": dataset.max_samples // 2})


def find(evidence: Evidence) -> Findings:
    config, runs = evidence.config, evidence.runs
    times = {seed: left_at(story) for seed, story in runs["twins"].items()}
    names = [dataset.id for dataset in config.datasets]
    pairs = [(name, left[name + TWINS[0]], left[name + TWINS[1]]) for left in times.values() for name in names]
    strangers = [
        abs(left[a + TWINS[0]] - left[b + TWINS[1]])
        for left in times.values()
        for one, two in combinations(names, 2)
        for a, b in ((one, two), (two, one))
    ]
    apart, together = mean(abs(a - b) for _, a, b in pairs), mean(a == b for _, a, b in pairs)
    chance = mean(distance == 0 for distance in strangers) if strangers else float("nan")
    said = [
        f"Twins leave {apart:.2f} epochs apart on average, two sub-datasets that are no twins "
        f"{mean(strangers) if strangers else float('nan'):.2f}.",
        f"{100 * together:.0f} % of the twins leave at the same moment (the end, if never), of the others "
        f"{100 * chance:.0f} %: what separates twins is which examples they drew, their order, and noise.",
    ]
    scores = {name: over_seeds(runs[name], answer_score) for name in runs}
    base = over_seeds(runs["whole"], total_flops).mean
    rows = [
        (name, scores[name].mean, scores[name].low, scores[name].high, over_seeds(runs[name], total_flops).mean / base,
         over_seeds(runs[name], _exclusions).mean)
        for name in runs
    ]  # fmt: skip
    tables = [
        Table(title="Twins", columns=("sub-dataset", "first half leaves, epoch", "second half leaves, epoch"),
              rows=pairs),
        Table(title="Whole sub-datasets and halves", rows=rows,
              columns=("run", "answer, %", "low", "high", "FLOPs against whole", "roll-outs with an exclusion")),
    ]  # fmt: skip
    most = max([value for _, a, b in pairs for value in (a, b)] or [1.0])
    diagonal = {"type": "scatter", "mode": "lines", "name": "together", "x": [0, most], "y": [0, most],
                "line": {"color": GREY, "dash": "dash"}}  # fmt: skip
    trace = dots("a pair of twins", [a for _, a, _ in pairs], [b for _, _, b in pairs], 0, size=9) | {
        "hovertext": [name for name, _, _ in pairs], "hoverinfo": "text"}  # fmt: skip
    drawn = figure([trace, diagonal], height=420, x="first half leaves, epoch", y="second half leaves, epoch",
                   legend=True)  # fmt: skip
    plot = Plot(title="When twins leave", figure=drawn, caption="One dot for each pair and seed; dots may coincide.")
    return Findings(title="Sub-datasets that converge alike", said=said, plots=[plot], tables=tables)


def _exclusions(story: Story) -> float:
    return sum(bool(rollout.excluded) for rollout in story.rollouts)
