"""`msft train`: runs a job with a live display, and prints the report at the end."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from msft.cli.display import Display
from msft.cli.quiet import quiet
from msft.config.schema import Config
from msft.record.run_folder import RunFolder
from msft.report.table import render_text
from msft.run.session import train
from msft.system.stopwatch import Stopwatch


def run(
    config: Config,
    *,
    resume: bool = False,
    allow_changed: Collection[str] = (),
    stopwatch: Stopwatch | None = None,
) -> None:
    """Trains and prints the report. If there are several processes, only the first prints."""
    quiet()
    main = os.environ.get("RANK", "0") == "0"
    with Display(Console(stderr=True, quiet=not main)) as display:
        train(config, display, resume=resume, allow_changed=allow_changed, stopwatch=stopwatch)
    if main:
        folder = RunFolder(Path(config.output))
        out = Console()
        render_text(folder, out)
        for what, path in (("The model", folder.final), ("The page", folder.page), ("The numbers", folder.summary)):
            out.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)
