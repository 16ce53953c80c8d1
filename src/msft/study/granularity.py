"""`msft study granularity`: does mSFT's gain over SFT depend on the number and the sizes of the sub-datasets?"""

from __future__ import annotations

from statistics import mean

from msft.config.dataset_section import DatasetConfig
from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.core.plain_words import many
from msft.study.draw import against, intervals
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import search, with_datasets, with_method
from msft.study.reading import Evidence, answer_score, total_flops
from msft.study.statistics import Interval, t_interval

PARTS = (1 / 4, 1 / 2, 1.0)
"""Shares of the data sets, in the configuration's order."""
SIZES = (0.5, 1.0)
"""Shares of the training examples of each data set."""


def variants(config: Config) -> tuple[Variant, ...]:
    if len(config.datasets) < 2:
        raise ConfigError(complaint("this study needs two data sets or more", "add data sets", field="datasets"))
    sizeless = [d.id for d in config.datasets if d.max_samples is None]
    if sizeless:
        found = f"{', '.join(sizeless)}: max_samples is not set"
        raise ConfigError(complaint(found, "set max_samples; this study uses a share of it", field="datasets"))
    counts = sorted({max(2, round(part * len(config.datasets))) for part in PARTS})
    made = []
    for count in counts:
        for size in SIZES:
            some = with_datasets(config, tuple(_smaller(d, size) for d in config.datasets[:count]))
            end = f"{count}_{100 * size:g}"
            made += [
                Variant(name=f"sft_{end}", config=with_method(some, "sft")),
                Variant(name=f"msft_{end}", config=search(some)),
            ]
    return tuple(made)


def _smaller(dataset: DatasetConfig, share: float) -> DatasetConfig:
    assert dataset.max_samples is not None
    return dataset.model_copy(update={"max_samples": max(1, round(share * dataset.max_samples))})


def find(evidence: Evidence) -> Findings:
    runs = evidence.runs
    kinds = [name.removeprefix("sft_") for name in runs if name.startswith("sft_")]
    gains: dict[str, Interval] = {}
    rows = []
    for kind in kinds:
        plain, searched = runs[f"sft_{kind}"], runs.get(f"msft_{kind}", {})
        seeds = [seed for seed in plain if seed in searched]
        if not seeds:
            continue
        gains[kind] = t_interval([answer_score(searched[s]) - answer_score(plain[s]) for s in seeds])
        cost = mean(total_flops(searched[s]) / total_flops(plain[s]) for s in seeds)
        count, size = kind.split("_")
        score = mean(answer_score(plain[s]) for s in seeds)
        rows.append((int(count), float(size), score, gains[kind].mean, gains[kind].low, gains[kind].high, cost))
    by_size: dict[str, dict[int, Interval]] = {}
    for kind, gain in gains.items():
        count, size = kind.split("_")
        by_size.setdefault(size, {})[int(count)] = gain
    traces = [
        intervals(f"{size} % of the examples", list(by_count), list(by_count.values()), number)
        for number, (size, by_count) in enumerate(by_size.items())
    ]
    said = [
        "Gain of mSFT over SFT, in points: "
        + "; ".join(
            f"{row[3]:+.2f} with {many(row[0], 'sub-dataset')} at {row[1]:g} % of their examples" for row in rows
        )
        + "."
    ]
    table = Table(
        title="Gain over SFT",
        columns=("sub-datasets", "examples, %", "SFT, %", "gain, points", "low", "high", "FLOPs against SFT"),
        rows=rows,
    )
    drawn = against(
        traces, [row[0] for row in rows], 0.0, "SFT", x_name="number of sub-datasets", y="gain over SFT, points"
    )
    plot = Plot(title="Gain over SFT", figure=drawn, caption="Differences within a seed; mean with 95 % interval.")
    return Findings(title="Number and sizes of the sub-datasets", said=said, plots=[plot], tables=[table])
