"""`msft report` and `msft status` on the folder of a comparison or of a study."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from msft.cli.compare import show
from msft.core.errors import RunError, complaint
from msft.core.plain_words import many
from msft.record.run_folder import RunFolder
from msft.report.story import read_story
from msft.report.table import plain_table
from msft.report.words import clean, epochs
from msft.screen.console import new_console
from msft.study.compare_answer import reference_of
from msft.study.compare_page import comparison_page
from msft.study.compare_table import render_comparison
from msft.study.comparison import VERSION, comparison, write
from msft.study.grid import StudyFolder
from msft.study.reading import finished
from msft.study.results import read_results
from msft.system import files

DONE, DAMAGED, FAILED, RUNNING, STOPPED, TO_GO = "done", "damaged", "failed", "running", "stopped", "to go"


def report(folder: StudyFolder, page: Path | None, *, watch: bool = False) -> None:
    """Prints a comparison from the runs that are finished, and writes its files again, or only its page to `page`.

    Raises RunError for the folder of `msft study`, whose findings need the job itself.
    """
    if watch:
        fix = "omit --watch, or name one of its runs, which are in runs/"
        raise RunError(complaint("only one run can be watched, and this is a study", fix, file=folder.path))
    if folder.kind != "compare":
        fix = f"repeat msft {folder.kind}, which keeps finished runs and writes the page, or name its runs, in runs/"
        raise RunError(complaint(f"this is the folder of msft {folder.kind}", fix, file=folder.path))
    was = _written(folder)
    chosen = was.get("reference") if was.get("version") == VERSION else None  # before, the default was another
    reference = chosen or reference_of(
        {name: str(settings.get("method.name")) for name, settings in folder.recorded_configs().items()}
    )
    data = comparison(read_results(folder), reference, was.get("notes", ()))
    if page is None:
        write(folder, data)
        show(folder, data)
        return
    files.replace("page", page, comparison_page(data).encode())
    out = new_console()
    render_comparison(data, out)
    out.print(f"The page: {page}", markup=False, highlight=False, soft_wrap=True)


def _written(folder: StudyFolder) -> dict[str, Any]:
    """comparison.json, which knows the reference; empty if the comparison has not been written yet."""
    try:
        was = json.loads(folder.comparison.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return was if isinstance(was, dict) else {}


def status(folder: StudyFolder, out: Console) -> None:
    """Prints how many runs are done, and the state of each. Raises RunError if the study's record is damaged."""
    names, seeds = folder.recorded_grid()
    failures = folder.read_failures()
    states, damage = {}, []
    for name, seed in product(names, seeds):
        try:
            states[name, seed] = _state(folder.run(name, seed), failures, name, seed)
        except RunError as error:
            states[name, seed] = DAMAGED
            damage.append(str(error))
    count = Counter(state.partition(",")[0] for state in states.values())
    others = [f"{count[state]} {state}" for state in (RUNNING, STOPPED, FAILED, DAMAGED, TO_GO) if count[state]]
    said = ", ".join([f"{count[DONE]} of {many(len(states), 'run')} done", *others])
    out.print(Text(f"msft {folder.kind}: {said}"), soft_wrap=True)
    table = plain_table()
    table.add_column("method" if folder.kind == "compare" else "runs", overflow="fold")
    for seed in seeds:
        table.add_column(f"seed {seed}")
    for name in names:
        table.add_row(*map(Text, [clean(name), *(states[name, seed] for seed in seeds)]))
    out.print(table)
    for name, by_seed in failures.items():
        for which, message in by_seed.items():
            if states.get((name, int(which))) == FAILED:
                out.print(Text(f"{clean(name)}, seed {which} failed: {clean(message)}"), soft_wrap=True)
    for message in damage:
        out.print(Text(f"Damaged: {clean(message)}"), soft_wrap=True)
    if (owner := RunFolder(folder.path).owner()) is not None:
        first = "" if count[DONE] or count[RUNNING] else "; the base model, which all runs share, is scored first"
        out.print(Text(f"Running: {owner}{first}."), soft_wrap=True)
    elif count[DONE] < len(states):
        out.print(Text("No process is running. To continue, repeat the command that started it."), soft_wrap=True)


def _state(run: RunFolder, failures: dict[str, dict[str, str]], name: str, seed: int) -> str:
    """One of the states, with the epoch that an unfinished run has reached. Raises RunError if it is damaged."""
    if finished(run) is not None:
        return DONE
    story = read_story(run) if run.exists else None
    running = run.owner() is not None
    if not running and str(seed) in failures.get(name, {}):
        return FAILED
    if story is None:
        return RUNNING if running else TO_GO
    return f"{RUNNING if running else STOPPED}, epoch {epochs(story.tip.epoch)}"
