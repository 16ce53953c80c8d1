"""Quality over compute: what each method has to show after so many FLOPs, scoring included, and when it is as good as
plain fine-tuning is in the end.

The quality is that of `msft.study.held_out`. Runs that did not record each item, such as those of version 0.1, have two
points instead: the base model and the final model, in the metric of the comparison. One such run, and all methods are
shown so: two measures do not belong on one axis.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from msft.study.held_out import Curve
from msft.study.results import Results, Run


def frontier(results: Results) -> dict[str, Any]:
    """The part of comparison.json that the figure and its table show; qualities are shares.

    `measure`: `held_out`, or the split on which final models are scored. `target`: the mean final quality of plain
    fine-tuning, `unit` its mean FLOPs; null without it. Of each method: `curve`, the mean over seeds; `flops` and
    `quality` at the end; `reached`: of how many seeds (`of`) how many come to the target (`seeds`), and the median
    FLOPs at which they do, where a seed that never does counts as more than any other (`flops`, null if that is never).
    """
    runs = {name: list(by_seed.values()) for name, by_seed in results.runs.items() if by_seed}
    known = all(run.held_out is not None for each in runs.values() for run in each)
    curves = {name: [_curve(run, known) for run in each] for name, each in runs.items()}
    plain = [name for name, each in runs.items() if each[0].plain]
    reference = "sft" if "sft" in plain else next(iter(plain), None)
    target = fmean(curve[-1][1] for curve in curves[reference]) if reference else None
    unit = fmean(curve[-1][0] for curve in curves[reference]) if reference else None
    return {
        "measure": "held_out" if known else results.split,
        "reference": reference,
        "target": target,
        "unit": unit,
        "methods": [
            {
                "method": name,
                "curve": [list(point) for point in mean_curve(each)],
                "flops": fmean(curve[-1][0] for curve in each),
                "quality": fmean(curve[-1][1] for curve in each),
                "reached": None if target is None else reached(each, target),
            }
            for name, each in curves.items()
        ],
    }


def _curve(run: Run, known: bool) -> Curve:
    if known:
        assert run.held_out is not None, "all runs have it"
        return run.held_out
    return [(run.spent[0], run.base), (run.spent[1], float(run.reports.mean()))]


def at(curve: Curve, flops: float) -> float:
    """The quality after so many FLOPs; before the first entry, that of the first."""
    return curve[max(0, bisect_right(curve, flops, key=lambda point: point[0]) - 1)][1]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean quality of several runs where one of them changes, from where all have begun; a run that has ended keeps
    its quality."""
    first = max(curve[0][0] for curve in curves)
    places = sorted({first, *(flops for curve in curves for flops, _ in curve if flops > first)})
    means = [(flops, fmean(at(curve, flops) for curve in curves)) for flops in places]
    return [point for i, point in enumerate(means) if i in (0, len(means) - 1) or point[1] != means[i - 1][1]]


def reached(curves: Sequence[Curve], target: float) -> dict[str, Any]:
    """When runs come to a quality: how many do, and the median FLOPs, with never as the most."""
    firsts = [next((flops for flops, quality in curve if quality >= target - 1e-12), math.inf) for curve in curves]
    middle = median(firsts)
    came = sum(map(math.isfinite, firsts))
    return {"seeds": came, "of": len(firsts), "flops": middle if math.isfinite(middle) else None}
