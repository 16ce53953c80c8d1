"""The first lines of a comparison: does each method beat plain SFT here, and how many seeds would show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from msft.core.plain_words import many
from msft.report.words import clean, difference
from msft.study.compare_words import SAME, Comparison, Entry, interval, same_models, verdict, with_seeds
from msft.study.statistics import CLOSE, FEWEST_FLIPS, seeds_to_show, t_interval

FEWEST = 3
"""Minimum number of seeds for an answer: the spread of two differences says almost nothing of the spread of seeds."""
WOULD_SHOW = "in every second such study"
HOPELESS = 100
"""Maximum number of seeds that is named, for a power of a half; `FOUR_OF_FIVE` takes about twice as many."""
FOUR_OF_FIVE = 0.8
"""The power of a study that is planned."""


def lead(data: Comparison) -> list[str]:
    """The answers first; then which methods returned the base model; then, of three methods or more, which is best."""
    said = [*answers(data), *fresh_seeds(data)]
    others = [verdict(data)] if not said or len(data["methods"]) > 2 else []
    return [*said, *returned_base(data), *others]


def reference_of(methods: Mapping[str, str]) -> str:
    """The variant that is subtracted from the others: `sft`, or else the first of plain SFT, or else the first.

    `methods`: variant to method.
    """
    plain = [variant for variant, method in methods.items() if method == "sft"]
    return "sft" if "sft" in plain else next(iter([*plain, *methods]))


def answers(data: Comparison) -> list[str]:
    """Whether each method beats the reference over these seeds, a sentence each; the searches first."""
    rows = {row["method"]: row for row in data["methods"]}
    if (reference := rows.pop(data["reference"], None)) is None or not reference["runs"]:
        return []
    same = {row["method"] for row in data["against"] if same_models(row)}
    order = sorted(rows.values(), key=lambda row: (not row.get("searches"), bool(row["plain"])))
    return [_answer(data, row, reference, row["method"] in same) for row in order]


def _answer(data: Comparison, one: Entry, two: Entry, same: bool) -> str:
    name, other = clean(one["method"]), clean(two["method"])
    found = _differences(one, two)
    if same:
        said = f"both handed over {SAME} {with_seeds(len(found))}."
        said = f"No: {said}" if len(found) >= FEWEST else f"{_few(len(found))}: {said} Use {FEWEST_FLIPS}."
    else:
        said = _answered(found, f"{name} minus {other} is", str(data["split"]))
    return f"Does {name} beat {other} here? {said}"


def _differences(one: Entry, two: Entry) -> list[float]:
    """The macro-average of one minus that of the other, by seed."""
    by_seed = {run["seed"]: run["macro"] for run in two["runs"]}
    return [run["macro"] - by_seed[run["seed"]] for run in one["runs"] if run["seed"] in by_seed]


def _answered(found: Sequence[float], moved: str, split: str) -> str:
    seeds, where = len(found), "on test" if split == "test" else "on validation, on which the methods acted"
    if not seeds:
        return "Not known: no seed is finished for both."
    mean = float(np.mean(found))
    if seeds < FEWEST:
        each = f" ({' and '.join(map(difference, found))})" if seeds > 1 else ""
        return f"{_few(seeds)}: {moved} {difference(mean)} points {where}{each}. Use {FEWEST_FLIPS}."
    if np.ptp(found) < CLOSE:
        same = (
            "No: both have the same average" if abs(mean) < CLOSE else f"Not tested: {moved} {difference(mean)} points"
        )
        return f"{same} {where} with each of {seeds} seeds."
    span = t_interval(found)
    assert span.low is not None and span.high is not None, "there are several seeds"
    said = "Yes" if span.low > 0 else "No, it is worse" if span.high < 0 else "Not shown"
    ends = interval({"low": span.low, "high": span.high})
    line = f"{said}: {moved} {difference(mean)} points {where} (95 % interval {ends}, {seeds} seeds)."
    return line if span.low > 0 or span.high < 0 else f"{line} {_would_show(found)}"


def _few(seeds: int) -> str:
    return f"Too few seeds to tell ({many(seeds, 'seed')})"


def _would_show(found: Sequence[float]) -> str:
    needed, surely = seeds_to_show(found, 0.5, HOPELESS), seeds_to_show(found, FOUR_OF_FIVE, 3 * HOPELESS)
    count = f"More than {HOPELESS}" if needed is None or surely is None else f"About {needed}"
    more = f", {surely} in four of five" if count.startswith("About") else ""
    return f"{count} seeds would show it {WOULD_SHOW}{more}, if difference and spread stay as they are."


def fresh_seeds(data: Comparison) -> list[str]:
    """How to take the seeds that would show it, if an answer names them: added to these, they would prove less."""
    if not any(WOULD_SHOW in said for said in answers(data)):
        return []
    return [
        f"Take those seeds afresh (--set training.seed={max(data['seeds']) + 1}, with another --output): p values do "
        "not hold for seeds that are added after a look at the first."
    ]


def returned_base(data: Comparison) -> list[str]:
    """Which methods returned the untrained base model, and with how many seeds."""
    counts = {row["method"]: [bool(run["base"]) for run in row["runs"]] for row in data["methods"] if row["runs"]}
    every = [one for runs in counts.values() for one in runs]
    if every and all(every):
        return ["Every run returned the untrained base model: nothing was gained by any method."]
    return [
        f"{clean(name)} returned the untrained base model with {sum(runs)} of {many(len(runs), 'seed')}."
        for name, runs in counts.items()
        if any(runs)
    ]
