"""In which settings several runs differ, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msft.report.several import Run
from msft.report.verdict import PLACES
from msft.report.words import clean

MOST_KEYS, MOST_VALUES, WIDTH = 8, 4, 40
"""Settings and values that are named, and the characters of a value."""
UNSET, GIVEN = "not set", "set"


def settings_in_words(runs: Sequence[Run]) -> str:
    """The settings of the resolved configurations that are not the same in all runs, with their values; empty for a
    single run, or if the settings of one are not known."""
    configs = [_whole(run) for run in runs]
    if len(runs) < 2 or not all(configs):
        return ""
    found = {key: [config.get(key) for config in configs] for key in _differing(runs, configs)}
    parts = tuple(f"{key}." for key, values in found.items() if GIVEN in values)
    found = {key: values for key, values in found.items() if not key.startswith(parts)}
    if not found:
        return "Their settings are the same."
    said = [f"{clean(key)} ({_values(values)})" for key, values in list(found.items())[:MOST_KEYS]]
    more = f"; and {len(found) - MOST_KEYS} more" if len(found) > MOST_KEYS else ""
    return f"They differ in: {'; '.join(said)}{more}."


def _differing(runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    same_content = len({json.dumps(run.story.header.get("fingerprints"), sort_keys=True) for run in runs}) == 1
    return [
        key
        for key in sorted({key for config in configs for key in config}, key=lambda key: (key != "method.name", key))
        if key != "output"
        and not (same_content and key.endswith(PLACES))
        and any(
            len({json.dumps(config.get(key), sort_keys=True) for config in compared}) > 1
            for compared in _compared(key, configs)
        )
    ]


def _compared(key: str, configs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The runs whose values of a key are compared: all; but the presets and parameters of a method say nothing of
    another one."""
    names = list(dict.fromkeys(config.get("method.name") for config in configs))
    if key == "method.preset":
        return [[config for config in configs if config.get("method.name") == name] for name in names]
    if len(names) > 1 and key.startswith("method."):
        return [[config for config in configs if key in config]]
    return [list(configs)]


def _whole(run: Run) -> Mapping[str, Any]:
    """The configuration of a run, with a key for each section or data set that another run may not have."""
    config, parts = run.story.config, ["peft", *(f"datasets.{entry}" for entry in run.story.entries)]
    return config | {part: GIVEN for part in parts if any(key.startswith(f"{part}.") for key in config)}


def _values(values: Sequence[Any]) -> str:
    """One value for each run, in their order; of many runs, the different ones and their number."""
    said = [_value(value) for value in values]
    if len(said) <= MOST_VALUES:
        return ", ".join(said)
    different = list(dict.fromkeys(said))
    more = f" and {len(different) - MOST_VALUES} more" if len(different) > MOST_VALUES else ""
    return f"{len(different)} different: {', '.join(different[:MOST_VALUES])}{more}"


def _value(value: Any) -> str:
    if value is None:
        return UNSET
    if isinstance(value, float):
        return f"{value:g}"
    text = clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
