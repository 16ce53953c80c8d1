"""`msft study`: a diagnostic on the user's own job: an analysis of the paper, or a question that it leaves open."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from msft.cli.quiet import quiet
from msft.cli.study_display import StudyDisplay
from msft.config.schema import Config
from msft.report.table import print_line, print_table
from msft.report.words import clean, duration
from msft.screen.console import new_console
from msft.study.clusters import Backend
from msft.study.findings import shown
from msft.study.grid import StudyFolder
from msft.study.runs import Progress
from msft.study.studies import run_study


def run(name: str, config: Config, output: Path | None, *, seeds: int, jobs: int, backend: Backend) -> None:
    """Runs the study and prints its sentences, its first table and the path of the page."""
    quiet()
    console = new_console()
    folder = StudyFolder(output or Path(f"{config.output}-{name}"))
    with StudyDisplay(jobs, _ended) as display:
        findings = run_study(
            name, config, folder, seeds=seeds, jobs=jobs, tell=display.tell, watch=display, setup=quiet,
            backend=backend,
        )  # fmt: skip
    console.print(f"\n{findings.title}", style="bold", markup=False)
    for sentence in findings.said:
        print_line(console, sentence)
    first = findings.tables[0]
    table = Table(box=box.SIMPLE_HEAD, title=first.title, title_justify="left")
    for number, column in enumerate(first.columns):
        table.add_column(clean(column), justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in first.rows:
        table.add_row(*(clean(shown(cell)) for cell in row))
    print_table(console, table)
    console.print(f"The page: {folder.page}", markup=False, highlight=False, soft_wrap=True)


def _ended(progress: Progress) -> str:
    """The line on a run that has ended."""
    end = f"failed: {clean(progress.failure)}" if progress.failure else f"done in {duration(progress.seconds)}"
    return f"[{progress.done}/{progress.total}] {clean(progress.variant)}, seed {progress.seed} {end}"
