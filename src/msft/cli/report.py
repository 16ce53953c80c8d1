"""`msft report`: the table and the page of one run, of several runs side by side, or of a comparison."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from msft.core.errors import RunError, complaint
from msft.record.run_folder import RunFolder
from msft.report.page import write_page
from msft.report.several import find_runs
from msft.report.several_page import answers, is_of_several, render_several, write_several
from msft.report.table import print_line, render_text
from msft.screen.console import new_console
from msft.study.grid import StudyFolder

EVERY = 10
"""Interval of `--watch` in seconds; a browser reloads the page at the same interval."""


def run(paths: Sequence[Path], page: Path | None, *, watch: bool = False) -> None:
    """Prints the tables and writes the page. Raises RunError if a folder holds no run."""
    out = new_console()
    single = RunFolder(paths[0])
    if len(paths) == 1 and StudyFolder(paths[0]).holds_study:
        from msft.cli.study_folder import report  # with all that reads the runs of a study

        report(StudyFolder(paths[0]), page, watch=watch)
        return
    if len(paths) == 1 and (single.exists or not paths[0].is_dir()):
        made = page or single.page
        if watch:
            _watch(single, made, out)
        render_text(single, out)
        write_page(single, made)
    else:
        if watch:
            fix = "name one run's folder, or omit --watch"
            raise RunError(complaint("only one run can be watched", fix, file=paths[0]))
        runs = find_runs(paths)
        made = page or _page_of(paths, [run.story.folder.path for run in runs])
        for line in answers(runs):
            print_line(out, line, "bold")
        render_several(runs, out)
        write_several(runs, made)
    out.print(f"\nThe page: {made}", markup=False, highlight=False, soft_wrap=True)


def _page_of(paths: Sequence[Path], runs: Sequence[Path]) -> Path:
    """report.html in the folder that was named or, of several, in the nearest one that holds all runs.

    Raises RunError if there is another file: only `--page` may replace what is no page of several runs.
    """
    place = paths[0]
    if len(paths) > 1:
        place = Path(os.path.commonpath([run.resolve() for run in runs]))
        while RunFolder(place).exists:  # a run within another: its page is there
            place = place.parent
        place = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
    made = place / "report.html"
    if place == Path(place.anchor) and place.is_absolute():
        raise RunError(complaint("these runs have no folder in common", "say where to write the page, with --page"))
    if made.exists() and not is_of_several(made):
        fix = "say where to write the page, with --page"
        raise RunError(complaint("this file is there, and is no page of several runs", fix, file=made))
    return made


def _watch(folder: RunFolder, page: Path, out: Console) -> None:
    """Writes the page each time the journal has grown, until the run is finished."""
    size = -1
    while True:
        transcript = folder.transcript()
        if transcript.final is not None:
            return
        if (now := folder.journal.stat().st_size) != size:
            write_page(folder, page, refresh=EVERY)
            if size < 0:
                said = f"Watching {folder.path}: {page} is updated while the run continues (Ctrl-C stops watching)"
                out.print(said, markup=False, highlight=False, soft_wrap=True)
            size = now
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:  # stops watching, not the run
            return
