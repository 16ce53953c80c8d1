"""Consoles: every one that msft prints to is made here."""

from __future__ import annotations

from rich.console import Console


def new_console(
    *, stderr: bool = False, highlight: bool = True, quiet: bool = False, width: int | None = None
) -> Console:
    """A console of rich that prints names as they are.

    rich would replace `:name:` in a path or a message by the emoji of that name, also where mark-up is off.
    """
    return Console(stderr=stderr, highlight=highlight, quiet=quiet, width=width, emoji=False)
