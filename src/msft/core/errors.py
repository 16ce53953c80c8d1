"""Errors that a user can cause. Everything else is a bug and may raise what it likes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend: the command line prints the message and exits with code 2.

    The message reads ``place: what was found. Fix: how``.
    """


def complaint(
    found: str, mend: str, *, file: Path | str | None = None, line: int | None = None, field: str = ""
) -> str:
    """One line in the house form: ``file:line field: what was found. Fix: how to put it right.``"""
    place = str(file) if file is not None else ""
    if line is not None:
        place += f":{line}"
    place = f"{place} {field}".strip()
    found = found if found.endswith((".", "!", "?")) else f"{found}."
    return f"{place}: {found} Fix: {mend}" if place else f"{found} Fix: {mend}"


class ConfigError(UserError):
    """The configuration cannot be used."""


class DataError(UserError):
    """A data set cannot be used."""


class ModelError(UserError):
    """The model folder cannot be used."""


class RunError(UserError):
    """The run folder cannot be used as asked: it holds a run, another process owns it, a file is damaged."""


class Diverged(RunError):  # noqa: N818 - a state of affairs, not a kind of error
    """Replaying the journal did not ask for what was journaled: the code, the configuration or the data changed."""

    def __init__(
        self, where: str, differences: Sequence[str], mend: str = "undo the change, or start a new run folder"
    ) -> None:
        self.differences = tuple(differences)
        listed = "; ".join(self.differences)
        super().__init__(complaint(f"this run cannot go on: {listed}", mend, field=where))


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A signal asked the run to end; what it had reached is durable, and --resume goes on from there."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(f"stopped by signal {signal}")

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        """A process of a study sends it to the one that started it."""
        return Stopped, (self.signal,)
