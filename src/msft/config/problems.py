"""What is wrong with a value, as validators raise it: pydantic carries it to the reader, which adds file and line."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what was found, how to mend it, and the key (below the validated value) that it is about."""

    found: str
    mend: str
    key: tuple[str | int, ...] = ()


class ProblemsError(ValueError):
    """One or more mistakes in a value; a ValueError, so that pydantic collects it with the others."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.found}. Mend: {problem.mend}" for problem in problems))


DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "123456789\u00b9\u00b2\u00b3"
}
"""Names that Windows keeps for devices, with any ending."""


def folded(name: str) -> str:
    """The same for names that are one name where case, width and composition do not count."""
    return unicodedata.normalize("NFKC", name).casefold()


def not_portable(name: str) -> str | None:
    """Why a name cannot be that of a file everywhere, or None: run folders are copied between systems."""
    if name.split(".", 1)[0].strip().casefold() in DEVICES:
        return f"found {name[:60]!a}, which Windows keeps for a device"
    if found := sorted(set(name) & set('<>:"|?*')):
        return f"found {name[:60]!a}, and {' '.join(found)} cannot be in the name of a file on Windows"
    return f"found {name[:60]!a}, which ends with a dot" if name.endswith(".") else None


def unknown_key(key: str, known: Iterable[str], *, parents: tuple[str | int, ...] = ()) -> Problem:
    """The complaint about a key that does not exist, with the nearest one that does."""
    return Problem("unknown key", one_of(key, known), (*parents, key))


def one_of(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where something known is near, else the list of what is known."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"use one of: {', '.join(known)}"


def shown(value: object) -> str:
    """A value as the user wrote it, cut short."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
