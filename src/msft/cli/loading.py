"""What is said before the libraries are loaded; imports little itself."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from msft.screen.console import new_console


def loading() -> AbstractContextManager[object]:
    """Says on a terminal that libraries are being loaded, which takes seconds; none of it stays there."""
    console = new_console(stderr=True)
    shown = console.is_terminal and os.environ.get("RANK", "0") == "0"
    return console.status("loading libraries") if shown else nullcontext()
