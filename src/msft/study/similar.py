"""`msft study similar`: similar sub-datasets. Each is split into two halves (twins): are both excluded together?"""

from __future__ import annotations

from itertools import combinations
from statistics import mean

from msft.config.dataset_section import DatasetConfig
from msft.config.schema import Config
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
    """The job as configured, and with two sub-datasets of half the size instead of each."""
    horizon(config)
    sizeless = [d.id for d in config.datasets if d.max_samples is None or d.max_samples < 2]
    if sizeless:
        found = f"{', '.join(sizeless)}: max_samples is not set to 2 or more"
        raise ConfigError(complaint(found, "set max_samples, which this study halves", field="datasets"))
    twins = tuple(_half(dataset, end) for dataset in config.datasets for end in TWINS)
    whole = search(config)
    return Variant(name="whole", config=whole), Variant(name="twins", config=with_datasets(whole, twins))


def _half(dataset: DatasetConfig, end: str) -> DatasetConfig:
    """A sample of half the size; the two halves are drawn independently and may share a few examples."""
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
        f"Twins are excluded {apart:.2f} epochs apart on average, other pairs of sub-datasets "
        f"{mean(strangers) if strangers else float('nan'):.2f}.",
        f"{100 * together:.0f} % of the twins are excluded at the same time (the end if never), and "
        f"{100 * chance:.0f} % of the other pairs. Twins differ only in the examples drawn, their order, and noise.",
    ]
    scores = {name: over_seeds(runs[name], answer_score) for name in runs}
    base = over_seeds(runs["whole"], total_flops).mean
    rows = [
        (name, scores[name].mean, scores[name].low, scores[name].high, over_seeds(runs[name], total_flops).mean / base,
         over_seeds(runs[name], _exclusions).mean)
        for name in runs
    ]  # fmt: skip
    tables = [
        Table(title="Twins", columns=("sub-dataset", "first half excluded, epoch", "second half excluded, epoch"),
              rows=pairs),
        Table(title="Whole sub-datasets and halves", rows=rows,
              columns=("run", "final model, %", "low", "high", "FLOPs against whole", "roll-outs with an exclusion")),
    ]  # fmt: skip
    most = max([value for _, a, b in pairs for value in (a, b)] or [1.0])
    diagonal = {"type": "scatter", "mode": "lines", "name": "together", "x": [0, most], "y": [0, most],
                "line": {"color": GREY, "dash": "dash"}}  # fmt: skip
    trace = dots("a pair of twins", [a for _, a, _ in pairs], [b for _, _, b in pairs], 0, size=9) | {
        "hovertext": [name for name, _, _ in pairs], "hoverinfo": "text"}  # fmt: skip
    drawn = figure([trace, diagonal], height=420, x="first half excluded, epoch", y="second half excluded, epoch",
                   legend=True)  # fmt: skip
    plot = Plot(title="When twins are excluded", figure=drawn, caption="One dot per pair and seed; dots may coincide.")
    return Findings(title="Similar sub-datasets", said=said, plots=[plot], tables=tables)


def _exclusions(story: Story) -> float:
    return sum(bool(rollout.excluded) for rollout in story.rollouts)
