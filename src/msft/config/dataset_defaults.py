"""`dataset_defaults`: keys that every entry of `datasets` has unless it gives them itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

from msft.config.problems import Problem, ProblemsError
from msft.core.plain_words import kind_of
from msft.core.wire import KeyPath

KEY = "dataset_defaults"
Place = TypeVar("Place")


def is_default(override: str) -> bool:
    """Whether an override `a.b=value` changes the defaults."""
    return override.partition("=")[0].partition(".")[0] == KEY


def inherit(data: dict[str, Any], places: dict[KeyPath, Place]) -> dict[KeyPath, KeyPath]:
    """Writes the defaults into the entries that lack them, each value whole, and their places beside those of the
    entries. Returns entry and key -> key of the defaults, for what was written.

    Raises ProblemsError if the defaults are not keys and values, or hold an id.
    """
    defaults, entries = data.get(KEY), data.get("datasets")
    if defaults is None:
        return {}
    if not isinstance(defaults, dict):
        found = f"found {kind_of(defaults)}, not keys and values"
        raise ProblemsError([Problem(found, "write keys of an entry of datasets", (KEY,))])
    if "id" in defaults:
        found = "an id is the name of one sub-dataset"
        raise ProblemsError([Problem(found, "write it in the entries of datasets", (KEY, "id"))])
    inherited: dict[KeyPath, KeyPath] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        for key in defaults if isinstance(entry, dict) else ():
            if key not in entry:
                entry[key] = deepcopy(defaults[key])
                inherited["datasets", number, key] = (KEY, key)
    for at, source in inherited.items():
        written = {place: where for place, where in places.items() if place[: len(source)] == source}
        places.update({at + place[len(source) :]: where for place, where in written.items()})
    return inherited


def at_the_defaults(
    keys: Iterable[tuple[KeyPath, str]], inherited: Mapping[KeyPath, KeyPath]
) -> dict[tuple[KeyPath, str], KeyPath]:
    """Of problems (key, what was found), those of the defaults themselves, which every entry that inherits the value
    shows again: -> the key in the defaults."""
    sources = {(key, found): inherited[key[:3]] + key[3:] for key, found in keys if key[:3] in inherited}
    shown = Counter((source, found) for (_, found), source in sources.items())
    heirs = Counter(inherited.values())
    return {each: source for each, source in sources.items() if shown[source, each[1]] == heirs[source[:2]]}
