"""A comparison of methods (comparison.json) as sentences and cells, shared by table, CSV and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msft.core.plain_words import many
from msft.report.words import NOT_KNOWN, clean, difference, duration, listed, mixed, p_value, percent, scaled, span
from msft.study.statistics import LEVEL

Comparison = Mapping[str, Any]
Entry = Mapping[str, Any]

SAME = "the same models"
NOT_TESTED = "Not tested"
IDENTICAL = "identical with each seed"


def headline(data: Comparison) -> str:
    counts = (("methods", "method"), ("seeds", "seed"), ("tasks", "sub-dataset"))
    counted = ", ".join(many(len(data[key]), what) for key, what in counts)
    return f"{clean(Path(data['model']).name)}: {counted}"


def verdict(data: Comparison) -> str:
    """Whether one method is significantly better than all others."""
    if winners := data["better_than_all"]:
        return f"{clean(winners[0])} is significantly better than all others (p < 0.05 against each)."
    return "No method is significantly better than all others (needs p < 0.05 against each)."


def sentence(data: Comparison, row: Entry) -> str:
    """The result of one comparison, with its intervals and tests."""
    reference, other = clean(data["reference"]), clean(row["method"])
    gap = row["difference"]
    if gap is None:
        return f"{other} and {reference}: no seed is finished for both."
    if same_models(row):
        return f"{other} and {reference}: {SAME} {with_seeds(len(row['seeds']))}."
    start = f"{other} minus {reference}: {difference(gap['mean'])} points"
    if row["p"] is None:
        return f"{start}; not tested: {untested(row)}."
    parts = [f"{start}, 95 % interval {interval(gap)} on these sub-datasets"]
    if row["like_these"]:
        parts.append(f"{interval(row['like_these'])} on sub-datasets like these")
    tests = [f"p = {row['p']:.2g} over {many(len(row['seeds']), 'seed')}"]
    tested = sum(each["p"] is not None for each in data["against"])
    if row["holm"] is not None and tested > 1:
        tests.append(f"{row['holm']:.2g} with Holm's correction for {tested} comparisons")
    if row["sign_flips"] is not None:
        tests.append(f"{row['sign_flips']:.2g} by the sign-flip test")
    return f"{conclusion(row)} {', '.join(parts)}; {', '.join(tests)}."


def in_brief(data: Comparison) -> list[str]:
    """The other methods, grouped by whether they are better or worse than the reference, show no difference, or are not
    tested."""
    reference = clean(data["reference"])
    groups: dict[str, list[str]] = {}
    for row in data["against"]:
        groups.setdefault(conclusion(row).rstrip("."), []).append(row["method"])
    order = ("Better", "Better, but not after Holm's correction", "Worse", "Worse, but not after Holm's correction")
    lines = []
    for name in (name for name in order if name in groups):
        direction, _, condition = name.lower().partition(", ")
        limited = f" ({condition.replace('holm', 'Holm')})" if condition else ""
        are = "is" if len(groups[name]) == 1 else "are"
        lines.append(f"{listed(groups[name])} {are} {direction} than {reference}{limited}.")
    if same := groups.get(SAME.capitalize()):
        lines.append(f"{listed(same)} handed over {SAME} as {reference}.")
    if alike := groups.get("No difference shown"):
        lines.append(f"No difference shown between {reference} and {listed(alike)}.")
    why: dict[str, list[str]] = {}
    for row in data["against"]:
        if conclusion(row) == f"{NOT_TESTED}.":
            why.setdefault(untested(row), []).append(row["method"])
    return lines + [f"{NOT_TESTED} against {reference}: {listed(names)} ({reason})." for reason, names in why.items()]


def conclusion(row: Entry) -> str:
    """The result in one or two words, before the numbers."""
    if same_models(row):
        return f"{SAME.capitalize()}."
    if row["p"] is None:
        return f"{NOT_TESTED}."
    if row["p"] >= LEVEL:
        return "No difference shown."
    better = "Better" if row["difference"]["mean"] > 0 else "Worse"
    if row["holm"] is not None and row["holm"] >= LEVEL:
        return f"{better}, but not after Holm's correction."
    return f"{better}."


def untested(row: Entry) -> str:
    """Why a difference has no p-value."""
    if not row["seeds"]:
        return "no seed is finished for both"
    if len(row["seeds"]) == 1:
        return "only one seed is finished for both"
    return f"the difference is {IDENTICAL}"


def notes(data: Comparison) -> list[str]:
    """Notes that are needed to read the numbers."""
    lines = []
    if data["split"] == "validation":
        lines.append(
            "No test split: these are validation scores, and the methods acted on them. Expect lower scores on new "
            "data."
        )
    lines.append(
        "Worst: the lowest score of a sub-dataset. Spread: the standard deviation over sub-datasets, in points. Gap: "
        "validation minus test score of the final model. Disk: the most bytes of snapshots held, relative to plain SFT."
    )
    lines.append(
        "± is Student's 95 % interval over training seeds. Win, tie, loss: number of sub-datasets on which the "
        "method is better than the reference, not different, worse (each tested over seeds at p < 0.05, so one in "
        f"twenty can differ by chance). A difference of one seed, or one that is {IDENTICAL}, is not tested: it is in "
        "none of these numbers, and no interval over seeds can be given."
    )
    lines += mixed(entry["measure"] for entry in data["tasks"])
    pairs = [row["model_pairs"] for row in data["against"] if row["model_pairs"]["pairs"]]
    if pairs:
        total, apart = sum(p["pairs"] for p in pairs), sum(p["differ"] for p in pairs)
        lines.append(
            f"Tested over items, {apart} of {total} pairs of models differ (p < 0.05). This compares single models, "
            "not the methods: another seed gives other models."
        )
    if dull := [entry["task"] for entry in data["tasks"] if not entry["learnable"]]:
        lines.append(
            "No clear improvement of the test metric on validation items (*, less than 3 standard errors above the "
            f"base model): {listed(dull)}. These sub-datasets count like the others."
        )
    if data["left_out"]:
        lines.append(f"Not in these numbers, because they have no test split: {listed(data['left_out'])}.")
    for name, messages in data["failures"].items():
        for seed, message in messages.items():
            lines.append(f"Failed: {clean(name)}, seed {seed}: {clean(message)}")
    return [*lines, *(clean(note) for note in data["notes"])]


HEADINGS = ("method", "average", "worst", "spread", "gap", "FLOPs", "scoring share", "time", "disk", "seeds")
"""Headings of `cells`. Disk: maximum bytes held, relative to plain fine-tuning."""


def columns(data: Comparison) -> range:
    """The columns of `cells` to show: the numbers of seeds only where they differ."""
    return range(len(HEADINGS) - (len({len(row["seeds"]) for row in data["methods"]}) == 1))


def cells(row: Entry) -> list[str]:
    """One method, in the order of HEADINGS."""
    flops = row["flops"]
    total = flops["total"]
    scoring = (flops["eval"]["mean"] + flops["probe"]["mean"]) / total["mean"] if total and total["mean"] else None
    disk = row["disk"]["peak_of_sft"]
    return [
        clean(row["method"]),
        with_reach(row["macro"]),
        with_reach(row["worst"]),
        with_reach(row["spread"]),
        difference(_mean(row["gap"])),
        scaled(total["mean"], "") if total else NOT_KNOWN,
        f"{scoring:.0%}" if scoring is not None else NOT_KNOWN,
        duration(row["seconds"]["mean"]) if row["seconds"] else NOT_KNOWN,
        f"{disk['mean']:.1f}" if disk else NOT_KNOWN,
        str(len(row["seeds"])),
    ]


COSTS = (
    "method", "training FLOPs", "scoring", "probes", "time", "disk, maximum", "disk, mean", "epoch of the final model",
)  # fmt: skip
"""Headings of `cost_cells`. Disk in bytes of snapshots; the epoch is a position along the final path."""


def cost_cells(row: Entry) -> list[str]:
    """The cost of one method, each with its interval, in the order of COSTS; of the time, what seeds took."""
    flops, disk = row["flops"], row["disk"]
    counted = [(flops[kind], "") for kind in ("train", "eval", "probe")]
    held = [(disk["peak_bytes"], "B"), (disk["mean_bytes"], "B")]
    return [
        clean(row["method"]),
        *(_amount(entry, lambda x, unit=unit: scaled(x, unit).strip()) for entry, unit in counted),  # type: ignore[misc]
        _time(row),
        *(_amount(entry, lambda x, unit=unit: scaled(x, unit).strip()) for entry, unit in held),  # type: ignore[misc]
        _amount(row["epoch"], lambda x: f"{x:.2f}"),
    ]


def _amount(entry: Entry | None, shown: Callable[[float], str]) -> str:
    if entry is None:
        return NOT_KNOWN
    reach = None if entry["low"] is None else entry["high"] - entry["mean"]
    return f"{shown(entry['mean'])} ± {shown(reach)}" if reach else shown(entry["mean"])


def _time(row: Entry) -> str:
    """What the quickest and the slowest seed took. An interval of the mean would say nothing: it is the load of the
    machine that differs."""
    took = [run["seconds"] for run in row["runs"] if "seconds" in run]  # not in a comparison.json of before
    if not took:
        return duration(row["seconds"]["mean"]) if row["seconds"] else NOT_KNOWN
    ends = [duration(end) for end in (min(took), max(took))]
    return " to ".join(dict.fromkeys(ends))


AGAINST = ("method", "difference", "95 %", "p", "Holm", "win/tie/loss")
"""Headings of `against_cells`."""


def against_cells(row: Entry) -> list[str]:
    """One method minus the reference, in the order of AGAINST."""
    gap = row["difference"]
    if same_models(row):
        return [clean(row["method"]), SAME, *[NOT_KNOWN] * (len(AGAINST) - 2)]
    return [
        clean(row["method"]),
        difference(_mean(gap)),
        interval_or_why(gap, row) if gap else NOT_KNOWN,
        p_value(row["p"]),
        p_value(row["holm"]),
        f"{row['win']}/{row['tie']}/{row['loss']}" if row["win"] + row["tie"] + row["loss"] else NOT_KNOWN,
    ]


def same_models(row: Entry) -> bool:
    """Whether method and reference handed over the same model with each seed."""
    same: int = row.get("same_models", 0)  # not in a comparison.json of before
    return 0 < len(row["seeds"]) == same


def with_seeds(count: int) -> str:
    """With how many seeds something was so."""
    return "with the one seed" if count == 1 else f"with each of {count} seeds"


def without_empty(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that say nothing in any row; the first column stays."""
    keep = [i for i in range(len(headings)) if i == 0 or any(row[i] != NOT_KNOWN for row in rows)]
    return [headings[i] for i in keep], [[row[i] for i in keep] for row in rows]


def interval(entry: Entry) -> str:
    """The interval of a difference, in points: −0.3 to +1.2."""
    return span(entry["low"], entry["high"])


def interval_or_why(entry: Entry, row: Entry) -> str:
    """The interval of a difference of `row`; a word where the same difference with each seed leaves none."""
    return "identical" if entry["low"] is None and len(row["seeds"]) > 1 else interval(entry)


def with_reach(entry: Entry | None) -> str:
    """61.3 ± 0.8, in percent."""
    if entry is None:
        return NOT_KNOWN
    if entry["low"] is None:
        return percent(entry["mean"])
    return f"{percent(entry['mean'])} ± {100 * (entry['high'] - entry['mean']):.1f}"


def _mean(entry: Entry | None) -> float | None:
    return None if entry is None else entry["mean"]
