"""The studies by name: the paper's analyses, and questions that it leaves open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from msft.config.schema import Config
from msft.core.errors import RunError, complaint
from msft.run.job import Job
from msft.study import budget, granularity, loss, noise, optimizer, own_moments, peaks, shift, similar, ticks
from msft.study.clusters import Backend
from msft.study.days import on_one_day
from msft.study.findings import Cell, Findings
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.positions import Watch
from msft.study.reading import Evidence, read_runs
from msft.study.results import REPEAT
from msft.study.runs import HERE, UNWATCHED, Progress, run_grid
from msft.study.worker import nothing


@dataclass(frozen=True)
class Study:
    """`variants`: the configurations, run with every seed. `find`: analyses the finished runs."""

    variants: Callable[[Config], Sequence[Variant]]
    find: Callable[[Evidence], Findings]


STUDIES: dict[str, Study] = {
    "peaks": Study(peaks.variants, peaks.find),
    "shift": Study(shift.variants, shift.find),
    "budget": Study(budget.variants, budget.find),
    "granularity": Study(granularity.variants, granularity.find),
    "ticks": Study(ticks.variants, ticks.find),
    "loss": Study(loss.variants, loss.find),
    "optimizer": Study(optimizer.variants, optimizer.find),
    "noise": Study(noise.variants, noise.find),
    "headroom": Study(own_moments.variants, own_moments.find),
    "similar": Study(similar.variants, similar.find),
}
"""`msft.cli.example_commands` has the question of each, for `--help`."""


def run_study(
    name: str,
    config: Config,
    folder: StudyFolder,
    *,
    seeds: int = 3,
    jobs: int = 1,
    backend: Backend = HERE,
    tell: Callable[[Progress], None] = lambda progress: None,
    watch: Watch = UNWATCHED,
    setup: Callable[[], None] = nothing,
) -> Findings:
    """Run what is not finished yet, and write the findings.

    Raises a UserError before anything is written if the configuration does not suit the study, and at the end if runs
    failed (the others are kept, and the same call continues the study).
    """
    study = STUDIES[name]
    first = config.training_seed
    grid = Grid(kind=f"study {name}", variants=tuple(study.variants(config)), seeds=tuple(range(first, first + seeds)))
    grid = on_one_day(grid, folder)
    failures = run_grid(folder, grid, jobs=jobs, tell=tell, watch=watch, setup=setup, backend=backend)
    if failures:
        listed = "; ".join(f"{variant}, seed {seed}: {why}" for (variant, seed), why in list(failures.items())[:3])
        found = f"{len(failures)} of the study's runs failed: {listed}"
        raise RunError(complaint(found, REPEAT, file=folder.path))
    by_name = {variant.name: variant for variant in grid.variants}

    def job(variant: str, seed: int) -> Job:
        own = by_name[variant].config
        training = own.training.model_copy(update={"seed": seed})
        return Job.prepare(own.model_copy(update={"training": training}))

    findings = study.find(Evidence(config, read_runs(folder, grid), job))
    said: dict[str, Cell] = {"model": config.model.name_or_path, "sub-datasets": len(config.datasets), "seeds": seeds}
    findings = replace(findings, settings=said)
    findings.write(folder)
    return findings
