"""A comparison of methods from the runs of a study: comparison.json, versioned (design 5)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from msft.core.vocabulary import ROOT, Task
from msft.report.cautions import learnable
from msft.report.final_path import FEWER, same_made, unequal_choice
from msft.study.compare_markdown import to_markdown
from msft.study.compare_page import comparison_page
from msft.study.compare_table import to_csv
from msft.study.frontier import frontier
from msft.study.grid import StudyFolder
from msft.study.results import Results, Run
from msft.study.statistics import (
    LEVEL,
    Array,
    Bootstrap,
    Interval,
    holm,
    item_test,
    sign_flips,
    t_interval,
    t_test,
)
from msft.system import files

VERSION = 2
"""Version of comparison.json; increased when a key changes its meaning or is removed."""

Json = dict[str, Any]
LATER = "Seeds were added later"
REDRAWN = "Each seed drew its own rows and splits: the intervals over seeds hold the variation of the data."


@lru_cache(maxsize=2)
def draws(seeds: int, sizes: tuple[int, ...]) -> Bootstrap:
    """The draws, shared by all comparisons with the same number of seeds."""
    return Bootstrap(seeds, sizes)


def comparison(results: Results, reference: str, notes: Sequence[str] = ()) -> Json:
    """The content of comparison.json. Metrics and differences are shares; `against`: each method minus the
    reference."""
    runs = {name: by_seed for name, by_seed in results.runs.items() if by_seed}
    p_values = _pairs(runs)
    others = [name for name in runs if name != reference] if reference in runs else []
    against = [_against(results, reference, name) for name in others]
    given = [note for note in notes if not note.startswith((REDRAWN, FEWER, LATER))]  # read back, they hold all three
    adjusted = holm({row["method"]: row["p"] for row in against if row["p"] is not None})
    for row in against:
        row["holm"] = adjusted.get(row["method"])
    return {
        "version": VERSION,
        "model": results.model,
        "split": results.split,
        "seeds": sorted({seed for by_seed in runs.values() for seed in by_seed}),
        "reference": reference,
        "tasks": _tasks(results),
        "left_out": list(results.left_out),
        "base": {"macro": float(np.mean(list(results.base.values()))), "tasks": dict(results.base)},
        "methods": [_method(results, name) for name in results.runs],
        "against": against,
        "p_values": p_values,
        "frontier": frontier(results),
        "better_than_all": [name for name in runs if _beats_all(name, runs, p_values)],
        "failures": {name: dict(messages) for name, messages in results.failures.items()},
        "notes": [*given, *([REDRAWN] if results.redrawn else []), *_later(results, runs), *_unequal_choice(runs)],
    }


def _later(results: Results, runs: Mapping[str, Mapping[int, Run]]) -> list[str]:
    """A note where somebody could look before the last seeds were asked for."""
    if results.began_with is None:
        return []
    now = len({seed for by_seed in runs.values() for seed in by_seed})
    return [
        f"{LATER}: this comparison began with {len(results.began_with)}, and has {now} now. p values and intervals are "
        "those of a number that was fixed before; if the first seeds were looked at, and more asked for because of "
        "them, a difference is shown by chance more often than 1 time in 20."
    ]


def write(folder: StudyFolder, data: Json) -> None:
    """Writes the numbers as JSON, CSV and Markdown, and the page."""
    numbers = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    files.replace("comparison", folder.comparison, numbers.encode())
    files.replace("comparison", folder.table, to_csv(data).encode())
    files.replace("comparison", folder.markdown, to_markdown(data).encode())
    files.replace("page", folder.page, comparison_page(data).encode())


def _unequal_choice(runs: Mapping[str, Mapping[int, Run]]) -> list[str]:
    """Says that some methods chose their final model among fewer points than others; in one run is enough."""
    found = {name: {run.few_candidates for run in by_seed.values()} for name, by_seed in runs.items()}
    return unequal_choice({name: True if True in few else next(iter(few)) for name, few in found.items()})


def _tasks(results: Results) -> list[Json]:
    best = results.best
    return [
        {
            "task": task,
            "measure": results.measures[task],
            "items": size if size > 1 else None,
            "validation_items": results.validation_items[task],
            "base": results.base[task],
            "learnable": learnable(results.base_validation[task], best[task], results.validation_items[task]),
        }
        for task, size in zip(results.tasks, results.sizes, strict=True)
    ]


def _method(results: Results, name: str) -> Json:
    """One row: means over seeds with Student's intervals; null if a method has no finished run with the value."""
    runs = list(results.runs[name].values())
    row: Json = {"method": name, "seeds": [run.seed for run in runs], "failed": len(results.failures.get(name, {}))}
    row["plain"], row["searches"] = (runs[0].plain, runs[0].searches) if runs else (None, None)

    def over_seeds(value: Callable[[Run], float | None]) -> Json | None:
        values = [value(run) for run in runs]
        known = [v for v in values if v is not None]
        return asdict(t_interval(known)) if known and len(known) == len(values) else None

    def macro(run: Run) -> float:
        return float(run.reports.mean())

    def task_mean(index: int) -> Json | None:
        return over_seeds(lambda run: float(run.reports[index]))

    def disk_share(key: str) -> Callable[[Run], float | None]:
        return lambda run: run.summary["disk"][key] / run.summary["disk"]["sft_bytes"] if _trained(run) else None

    row["macro"] = over_seeds(macro)
    row["validation"] = over_seeds(lambda run: run.validation)
    # Without a test split the average is that of validation, and there is no gap.
    validation_is_all = results.split == "validation"
    row["gap"] = over_seeds(
        lambda run: None if validation_is_all or run.validation is None else run.validation - macro(run)
    )
    row["worst"] = over_seeds(lambda run: float(run.reports.min()))
    row["spread"] = over_seeds(lambda run: float(run.reports.std()))
    row["tasks"] = {task: task_mean(index) for index, task in enumerate(results.tasks)}
    row["flops"] = {
        kind: over_seeds(lambda run, kind=kind: float(run.summary["flops"][kind]))  # type: ignore[misc]
        for kind in ("train", "eval", "probe")
    } | {"total": over_seeds(lambda run: float(sum(run.summary["flops"].values())))}
    row["seconds"] = over_seeds(lambda run: run.summary["seconds"]["total"])
    row["disk"] = {
        key: over_seeds(lambda run, key=key: float(run.summary["disk"][key]))  # type: ignore[misc]
        for key in ("peak_bytes", "mean_bytes")
    } | {"peak_of_sft": over_seeds(disk_share("peak_bytes")), "mean_of_sft": over_seeds(disk_share("mean_bytes"))}
    row["epoch"] = over_seeds(lambda run: run.summary["answer"]["epoch"])
    row["runs"] = [
        {"seed": run.seed, "macro": macro(run), "validation": run.validation,
         "base": run.summary["answer"]["snapshot"] == ROOT,
         "flops": sum(run.summary["flops"].values()),
         "seconds": run.summary["seconds"]["total"],
         "tasks": {task: float(report) for task, report in zip(results.tasks, run.reports, strict=True)}}
        for run in runs
    ]  # fmt: skip
    return row


def _trained(run: Run) -> bool:
    return bool(run.summary["disk"]["sft_bytes"])


def _shared_seeds(one: Mapping[int, Run], two: Mapping[int, Run]) -> list[int]:
    return [seed for seed in one if seed in two]


def _differences(one: Mapping[int, Run], two: Mapping[int, Run]) -> Array:
    """(S, T), paired by seed."""
    return np.array([one[seed].reports - two[seed].reports for seed in _shared_seeds(one, two)])


def _against(results: Results, reference: str, name: str) -> Json:
    """A method minus the reference, on their common seeds."""
    one, two = results.runs[name], results.runs[reference]
    seeds = _shared_seeds(one, two)
    table = _differences(one, two)
    items = (
        [np.stack([one[s].items[t] - two[s].items[t] for s in seeds]) for t in range(len(results.tasks))]
        if seeds
        else []
    )
    macro = table.mean(1) if seeds else np.array([])
    bootstrap = draws(len(seeds), tuple(d.shape[1] for d in items)) if len(seeds) > 1 else None
    over_tasks = bootstrap.interval(items) if bootstrap else None
    rows = [_task(task, i, table[:, i], items[i], bootstrap) for i, task in enumerate(results.tasks)] if seeds else []
    apart = [p < LEVEL for s in seeds if (p := item_test(one[s].items, two[s].items)) is not None]
    return {
        "method": name,
        "seeds": seeds,
        "difference": asdict(t_interval(macro)) if seeds else None,
        "p": t_test(macro),
        "sign_flips": sign_flips(macro),
        "like_these": asdict(over_tasks) if over_tasks else None,
        "model_pairs": {"pairs": len(apart), "differ": sum(apart)},
        "same_models": sum(same_made(one[seed].made, two[seed].made) for seed in seeds),
        "tasks": rows,
        **{verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("win", "tie", "loss")},
    }


def _task(task: Task, index: int, by_seed: Array, items: Array, bootstrap: Bootstrap | None) -> Json:
    p = t_test(by_seed)
    mean = float(by_seed.mean())
    interval = bootstrap.task_interval(index, items) if bootstrap else Interval(mean)
    return {
        "task": task,
        "difference": asdict(interval),
        "p": p,
        "verdict": None if p is None else "tie" if p >= LEVEL else "win" if mean > 0 else "loss",
    }


def _pairs(runs: Mapping[str, Mapping[int, Run]]) -> dict[str, dict[str, float | None]]:
    """p of the t-test of every pair of methods, on their common seeds."""
    found: dict[str, dict[str, float | None]] = {name: {} for name in runs}
    for one in runs:
        for two in runs:
            if one != two and (table := _differences(runs[one], runs[two])).size:
                found[one][two] = t_test(table.mean(1))
    return found


def _beats_all(
    name: str, runs: Mapping[str, Mapping[int, Run]], p_values: Mapping[str, Mapping[str, float | None]]
) -> bool:
    """Whether it is better than all others with p < 0.05 against each: an intersection of tests needs no correction."""
    others = [other for other in runs if other != name]
    for other in others:
        p = p_values[name].get(other)
        if p is None or math.isnan(p) or p >= LEVEL or _differences(runs[name], runs[other]).mean() <= 0:
            return False
    return bool(others)
