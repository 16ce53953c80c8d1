"""`msft train`: runs a job with a live display, and prints the report at the end."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from msft.cli.quiet import quiet
from msft.config.schema import Config
from msft.record.run_folder import RunFolder
from msft.report.table import render_text
from msft.run.session import train
from msft.screen.console import new_console
from msft.screen.display import Display, plan_of
from msft.system.stopwatch import Stopwatch


def run(
    config: Config,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    allow_changed: Collection[str] = (),
    stopwatch: Stopwatch | None = None,
) -> None:
    """Trains and prints the report. If there are several processes, only the first prints."""
    quiet()
    main = os.environ.get("RANK", "0") == "0"
    with Display(new_console(stderr=True, quiet=not main), plan=plan_of(config)) as display:
        train(
            config, display, resume=resume, allow_changed=allow_changed, stopwatch=stopwatch, overrides=overrides
        )  # fmt: skip
    if main:
        folder = RunFolder(Path(config.output))
        out = new_console()
        render_text(folder, out, with_notes=False)  # the display has printed them
        for what, path in (("The model", folder.final), ("The page", folder.page), ("The numbers", folder.summary)):
            out.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)
