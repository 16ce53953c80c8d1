"""`msft compare`: methods and controls side by side on the same splits, with statistics (design 5)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msft.cli.quiet import quiet
from msft.cli.study_display import StudyDisplay
from msft.config.schema import Config
from msft.core.errors import ConfigError, RunError, complaint
from msft.report.words import clean, duration
from msft.screen.console import new_console
from msft.study.clusters import Backend
from msft.study.compare_answer import reference_of
from msft.study.compare_table import render_comparison, summary_line
from msft.study.comparison import Json, comparison, write
from msft.study.days import on_one_day
from msft.study.grid import Grid, StudyFolder
from msft.study.results import read_results
from msft.study.runs import HERE, Progress, run_grid
from msft.study.variants import ignored, variants


def run(
    config: Config,
    methods: Sequence[str],
    *,
    seeds: int,
    jobs: int,
    output: Path | None,
    against: str | None,
    redraw: bool = False,
    backend: Backend = HERE,
) -> int:
    """Runs what is missing and prints the comparison of all runs. Returns 1 if a run failed, else 0.

    Raises a UserError, before anything is written, if an argument cannot be used.
    """
    quiet()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RunError(complaint("compare starts its processes itself", "use --jobs, without accelerate launch"))
    made = variants(config, methods)
    names = [variant.name for variant in made]
    reference = against or reference_of({variant.name: variant.config.method.name for variant in made})
    if reference not in names:
        found = f"--against: {reference!r} is not one of the methods"
        raise ConfigError(complaint(found, f"use one of: {', '.join(names)}"))
    first = config.training_seed
    grid = Grid(kind="compare", variants=made, seeds=tuple(range(first, first + seeds)), redraw=redraw)
    folder = StudyFolder(output or Path(f"{config.output}-compare"))
    grid = on_one_day(grid, folder)
    with StudyDisplay(jobs, _ended) as display:
        failures = run_grid(folder, grid, jobs=jobs, tell=display.tell, watch=display, setup=quiet, backend=backend)
    data = comparison(read_results(folder), reference, ignored(config, names))
    write(folder, data)
    show(folder, data)
    return 1 if failures else 0


def show(folder: StudyFolder, data: Json) -> None:
    """Prints the comparison, and the files that hold it."""
    out = new_console()
    render_comparison(data, out)
    for what, path in (
        ("The page", folder.page),
        ("The numbers", folder.comparison),
        ("The table", folder.table),
        ("As Markdown", folder.markdown),
    ):
        out.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)


def _ended(progress: Progress) -> str:
    """The line on a run that has ended."""
    place = f"[{progress.done}/{progress.total}]"
    if progress.summary is None:
        return f"{place} {clean(progress.variant)}, seed {progress.seed} failed: {clean(progress.failure or '')}"
    macro = progress.summary["macro"]
    scores = macro["test"] if macro["test"]["answer"] is not None else macro["validation"]
    gained = None if scores["base"] is None or scores["answer"] is None else scores["answer"] - scores["base"]
    ended = summary_line(progress.variant, progress.seed, scores["answer"], gained)
    return f"{place} {ended} in {duration(progress.seconds)}"
