"""`msft eval`: scores the final model of a run, or any model, on a split, as a run scores it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from msft.cli.quiet import quiet
from msft.config.reader import load
from msft.config.written import key_of
from msft.core.errors import ConfigError, complaint
from msft.core.paths import absent
from msft.record.run_folder import RunFolder
from msft.report.table import plain_table
from msft.report.words import MEASURES, NOT_KNOWN, clean, listed, percent
from msft.run.evaluate import Evaluation, Split, evaluate
from msft.run.moved import config_of_model, moved_base
from msft.screen.console import new_console

ONCE = (
    "a run scores its test split once, at its end. A choice based on further test scores makes those scores too "
    "optimistic: choose on validation"
)
OF_DATA = ("datasets", "dataset_defaults", "data.", "aggregate")
"""Keys that decide what of a run's model is scored."""


def run(model: str, config: Path | None, overrides: Sequence[str], *, split: Split, as_json: bool = False) -> None:
    """Prints the scores. Raises a UserError if model, configuration or data cannot be used."""
    quiet()
    folder = RunFolder(Path(model))
    if config is None and not folder.exists:
        fix = "name a configuration with --config FILE, whose data are scored"
        what = "this folder holds no run" if folder.path.exists() else absent(folder.path)
        raise ConfigError(complaint(what, f"name a run, or {fix}", file=model))
    base = moved_base(folder, overrides) if folder.exists else None
    notes = new_console(stderr=True, highlight=False)

    def warn(found: str) -> None:
        notes.print(Text(f"warning: {found}.", style="yellow"), soft_wrap=True)

    if split == "test":
        warn(ONCE)

    # Whoever names other data scores them; the run's own are those that it had.
    chosen = config is not None or any(key_of(each).startswith(OF_DATA) for each in overrides)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        bar = progress.add_task("scoring", total=None)
        found = evaluate(
            config_of_model(folder, overrides) if config is None else load(config, overrides), model, split,
            base=base, progress=lambda done, total: progress.update(bar, completed=done, total=total),
            others=warn if chosen else None,
        )  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(as_dict(found), indent=2, allow_nan=False) + "\n")
    else:
        show(found, new_console(highlight=False))


def as_dict(found: Evaluation) -> dict[str, object]:
    """The scores as a dictionary; metrics and search scores in [0, 1]."""
    return {
        "version": 1,
        "model": found.model,
        "split": found.split,
        "scores": {
            task: {
                "measure": found.measures[task],
                "report": scores.report,
                "interval": found.interval(task),
                "control": scores.control,
                "items": len(scores.reported),
            }
            for task, scores in found.scores.items()
        },
        "macro": found.macro,
        "left_out": found.left_out,
    }


def show(found: Evaluation, console: Console) -> None:
    """The scores as a table; names are printed literally, never as mark-up."""
    console.print(Text(f"{clean(found.model)} on the {found.split} split, in %", style="bold"), soft_wrap=True)
    table = plain_table()
    for name in ("sub-dataset", "measure"):
        table.add_column(name, overflow="fold")
    for name in ("score", "95 % interval", "items"):
        table.add_column(name, justify="right")
    for task, scores in found.scores.items():
        measure, interval = found.measures[task], found.interval(task)
        shown = f"{percent(interval[0])} to {percent(interval[1])}" if interval else NOT_KNOWN
        cells = [clean(task), MEASURES.get(measure, clean(measure)), percent(scores.report), shown]
        table.add_row(*map(Text, [*cells, str(len(scores.reported))]))
    table.add_section()
    table.add_row(*map(Text, ["average", "", percent(found.macro), "", str(found.items)]), style="bold")
    console.print(table)
    if found.left_out:
        console.print(Text(f"No {found.split} split: {listed(found.left_out)}.", style="dim"), soft_wrap=True)
