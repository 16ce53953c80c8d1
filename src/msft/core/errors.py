"""Errors that a user can cause. Every other exception is a bug."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can fix: the command line prints the message and exits with code 2.

    The message reads ``place: what was found. Fix: how``.
    """


def complaint(found: str, fix: str, *, file: Path | str | None = None, line: int | None = None, field: str = "") -> str:
    """The message on one line: ``file:line field: what was found. Fix: how``."""
    place = str(file) if file is not None else ""
    if line is not None:
        place += f":{line}"
    place = f"{place} {field}".strip()
    found = found if found.endswith((".", "!", "?")) else f"{found}."
    return f"{place}: {found} Fix: {fix}" if place else f"{found} Fix: {fix}"


class ConfigError(UserError):
    """The configuration cannot be used."""


class DataError(UserError):
    """A data set cannot be used."""


class ModelError(UserError):
    """The model folder cannot be used."""


class RunError(UserError):
    """The run folder cannot be used as requested: it holds a run, another process owns it, or a file is damaged."""


class Diverged(RunError):  # noqa: N818 - the name says what happened
    """A replayed segment differs from the journaled one: the code, the configuration or the data changed."""

    def __init__(
        self,
        where: str,
        differences: Sequence[str],
        fix: str = "undo the change, or start a new run folder",
        *,
        may_change: Sequence[str] = (),
    ) -> None:
        self.differences = tuple(differences)
        self.may_change = tuple(may_change)
        """The fields that differ, if the run can continue with all of them."""
        listed = "; ".join(self.differences)
        super().__init__(complaint(f"this run cannot continue: {listed}", fix, field=where))


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal stopped the run. Its progress is durable, and `--resume` continues from there."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(f"stopped by signal {signal}")

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        """Makes the exception picklable: a worker process of a study sends it to the process that started it."""
        return Stopped, (self.signal,)


def first_line(error: BaseException) -> str:
    """The beginning of what another library's error says."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def in_a_line(error: BaseException) -> str:
    """The kind of another library's error, and the beginning of what it says."""
    return f"{type(error).__name__}: {first_line(error)}"
