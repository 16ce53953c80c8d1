"""The first lines of a comparison: does the searched method beat plain SFT here, and how many seeds would tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from msft.report.words import clean, difference, many
from msft.study.compare_words import Comparison, Entry, interval, verdict
from msft.study.statistics import FEWEST_FLIPS, seeds_to_tell, t_interval

FEWEST = 3
"""Minimum number of seeds for an answer: the spread of two differences says almost nothing of the spread of seeds."""
HOPELESS = 100
"""Maximum number of seeds that is named."""


def lead(data: Comparison) -> list[str]:
    """The answer first; then which methods returned the base model; then, of three methods or more, which is best."""
    said = answer(data)
    others = [verdict(data)] if said is None or len(data["methods"]) > 2 else []
    return [*([] if said is None else [said]), *returned_base(data), *others]


def reference_of(methods: Mapping[str, str]) -> str:
    """The variant from which the others are subtracted: the first that is not plain SFT. `methods`: variant to method.

    So a difference is always that of the searched method minus the other, whatever the order of `--methods`.
    """
    return next((variant for variant, method in methods.items() if method != "sft"), next(iter(methods)))


def answer(data: Comparison) -> str | None:
    """Whether the searched method beats plain SFT over these seeds; None if the comparison does not hold both.

    The searched method is the reference or, if that is plain SFT, the first other one.
    """
    rows = [row for row in data["methods"] if row["plain"] is not None]
    searched = sorted((row for row in rows if not row["plain"]), key=lambda row: row["method"] != data["reference"])
    plain = [row for row in rows if row["plain"]]
    if not searched or not plain:
        return None
    one, two = searched[0], plain[0]
    name, other = clean(one["method"]), clean(two["method"])
    found = _differences(one, two)
    return f"Does {name} beat {other} here? {_answered(found, f'{name} minus {other} is', str(data['split']))}"


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
        few = f"Too few seeds to tell ({many(seeds, 'seed')})"
        return f"{few}: {moved} {difference(mean)} points {where}{each}. Use {FEWEST_FLIPS}."
    if np.ptp(found) < 1e-12:
        same = (
            "No: both have the same average" if abs(mean) < 1e-12 else f"Not tested: {moved} {difference(mean)} points"
        )
        return f"{same} {where} with each of {seeds} seeds."
    span = t_interval(found)
    assert span.low is not None and span.high is not None, "there are several seeds"
    said = "Yes" if span.low > 0 else "No, it is worse" if span.high < 0 else "Not shown"
    ends = interval({"low": span.low, "high": span.high})
    line = f"{said}: {moved} {difference(mean)} points {where} (95 % interval {ends}, {seeds} seeds)."
    return line if span.low > 0 or span.high < 0 else f"{line} {_would_tell(found)}"


def _would_tell(found: Sequence[float]) -> str:
    needed = seeds_to_tell(found, HOPELESS)
    count = f"More than {HOPELESS}" if needed is None else f"About {needed}"
    return f"{count} seeds would tell, if difference and spread stay as they are."


def returned_base(data: Comparison) -> list[str]:
    """Which methods returned the untrained base model, and with how many seeds."""
    counts = {row["method"]: [bool(run["base"]) for run in row["runs"]] for row in data["methods"] if row["runs"]}
    every = [one for runs in counts.values() for one in runs]
    if every and all(every):
        return ["Every run returned the untrained base model: nothing was gained by any method."]
    return [
        f"{clean(name)} returned the untrained base model with {sum(runs)} of {len(runs)} seeds."
        for name, runs in counts.items()
        if any(runs)
    ]
