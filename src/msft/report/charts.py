"""The other figures: compute and time by activity, snapshots held over time."""

from __future__ import annotations

from collections.abc import Mapping

from msft.report.cost import flops, holdings, ledger, plain
from msft.report.plots import LINE, PALETTE, STAR, Figure, bars, figure, rows_of, short, shown, unit
from msft.report.seconds import seconds_of
from msft.report.story import Story
from msft.report.words import duration, in_epochs, scaled

SPENDINGS = {
    "train": (LINE, "training"), "eval": (PALETTE[2], "scoring"), "probe": (PALETTE[4], "probes"),
    "recompute": (PALETTE[6], "repeated training"),
}  # fmt: skip


def compute_figure(story: Story) -> Figure:
    """FLOPs by kind, of this run and of plain fine-tuning if that can be estimated."""
    runs: dict[str, Mapping[str, int]] = {
        "this run": flops(story),
    }
    if (estimated := plain(story)) is not None:
        runs[f"plain, {in_epochs(estimated.epochs)}"] = estimated.flops
    return stacked_flops(runs)


def stacked_flops(runs: Mapping[str, Mapping[str, int]]) -> Figure:
    """One bar per run, divided by kind of FLOPs."""
    per, name = unit(max(sum(each.values()) for each in runs.values()), "FLOPs")
    traces = []
    for kind, (colour, words) in SPENDINGS.items():
        if not any(each[kind] for each in runs.values()):
            continue
        base = [sum(v for k, v in each.items() if _before(k, kind)) / per for each in runs.values()]
        texts = [f"{shown(run)}: {words} {scaled(each[kind], 'FLOPs')}" for run, each in runs.items()]
        length = [short(each[kind] / per) for each in runs.values()]
        traces.append(bars([short(b) for b in base], length, list(range(len(runs))), texts, words, colour))
    made = figure(traces, height=110 + 34 * len(runs), x=name, legend=True)
    made["layout"]["barmode"] = "overlay"
    return rows_of(made, list(runs))


def _before(kind: str, other: str) -> bool:
    order = list(SPENDINGS)
    return order.index(kind) < order.index(other)


def time_figure(story: Story) -> Figure | None:
    """Wall-clock time by activity; None if no times were recorded."""
    clock = seconds_of(story)
    spent = {group: value for group, value in clock.groups.items() if value >= 0.05}
    if not spent:
        return None
    per, name = (3600.0, "hours") if clock.total > 7200 else (60.0, "minutes")
    if clock.total < 180:
        per, name = 1.0, "seconds"
    texts = [f"{group}: {duration(value)}, {value / clock.total:.1%}" for group, value in spent.items()]
    values = [short(value / per) for value in spent.values()]
    rows = list(range(len(spent)))
    made = figure([bars([0.0] * len(rows), values, list(rows), texts, "", LINE)], height=70 + 26 * len(rows), x=name)
    return rows_of(made, list(spent))


def disk_figure(story: Story) -> Figure | None:
    """Bytes of snapshots held over the compute spent; None if nothing was trained."""
    held, two = holdings(story)
    if not two:
        return None
    spent = ledger(story)
    per, name = unit(spent[-1], "FLOPs")
    scale, size = unit(max(two, *(each.most for each in held)), "B")
    x, y, texts = [], [], []
    for number, each in enumerate(held, start=1):
        heights = [each.during, each.end, *([each.most] if each.again else [])]
        for at, count in ((spent[number - 1], each.during), *((spent[number], height) for height in heights)):
            x.append(short(at / per))
            y.append(short(count / scale))
            texts.append(f"{scaled(count, 'B')} at {short(at / per):.4g} {name}")
    line = {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "hovertext": texts, "hoverinfo": "text",
        "line": {"color": LINE, "width": 1.6}, "fill": "tozeroy", "fillcolor": "rgba(59,130,196,0.15)",
        "name": "this run",
    }  # fmt: skip
    end = short(spent[-1] / per)
    flat = {
        "type": "scatter", "mode": "lines", "x": [0, end], "y": [short(two / scale)] * 2, "name": "plain fine-tuning",
        "hovertext": [f"plain fine-tuning that keeps its last and its best model: {scaled(two, 'B')}"] * 2,
        "hoverinfo": "text", "line": {"color": STAR, "width": 2, "dash": "dash"},
    }  # fmt: skip
    made = figure([line, flat], height=230, x=f"compute spent, {name}", y=f"snapshots held, {size}", legend=True)
    made["layout"]["yaxis"]["rangemode"] = "tozero"
    return made
