"""Wall-clock time of a run by activity: `seconds` of summary.json, and the same as text and table rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from msft.report.story import Story
from msft.report.words import duration
from msft.system.stopwatch import OTHER

GROUPS = {
    "start": "loading libraries, data and model; checking the run folder",
    "train": "optimizer steps: input batches, forward and backward passes, the update",
    "eval": "scoring: base model, evaluations, roll-back points, test",
    "probe": "probes",
    "snapshot": "copying the state and waiting until it is durable",
    "restore": "roll-backs",
    "recompute": "repeating training after snapshots.max dropped a snapshot, or after a crash",
    "record": "journal, live view, trackers, page",
    "export": "writing the final model",
    OTHER: "everything else",
}
"""Descriptions of the groups. The kinds of `msft.system.stopwatch` are `group` or `group.part`."""
COMPUTE = ("train.compute", "train.optimizer", "train")
"""The kinds that count as training. Early versions recorded one kind `train`, which includes input batches."""


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time of a run over all its resumes, including recovery and repeated work."""

    kinds: dict[str, float]

    @cached_property
    def groups(self) -> dict[str, float]:
        """Seconds of each of `GROUPS`; kinds unknown to this version count as `other`."""
        spent = dict.fromkeys(GROUPS, 0.0)
        for kind, value in self.kinds.items():
            group = kind.partition(".")[0]
            spent[group if group in GROUPS else OTHER] += value
        return spent

    @property
    def total(self) -> float:
        return math.fsum(self.kinds.values())

    def parts(self, group: str) -> dict[str, float]:
        """Seconds of the parts of a group, by name, the longest first; empty if it has no parts."""
        inner = {kind.partition(".")[2]: value for kind, value in self.kinds.items() if kind.startswith(f"{group}.")}
        return dict(sorted(inner.items(), key=lambda entry: -entry[1]))

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the total: `compute` (forward, backward, update), `eval` (scoring), `else`; empty if total is 0.

        On a GPU the update runs asynchronously, so the wait for it counts towards the next activity.
        """
        if not self.total:
            return {}
        compute = sum(self.kinds.get(kind, 0.0) for kind in COMPUTE) / self.total
        scoring = self.groups["eval"] / self.total
        return {"compute": compute, "eval": scoring, "else": max(0.0, 1.0 - compute - scoring)}

    def as_json(self) -> dict[str, Any]:
        """The form of summary.json: seconds by group, their `total`, `parts` of groups, and `shares` of the total."""
        parts = {group: found for group in GROUPS if (found := self.parts(group))}
        return {**self.groups, "total": self.total, "parts": parts, "shares": self.shares}

    @property
    def in_words(self) -> str:
        """One line: the total, the shares, and the longest of the other activities."""
        if not self.total:
            return duration(0.0)
        shares, rest = self.shares, {**self.groups, "train": self.groups["train"] - self.shares["compute"] * self.total}
        del rest["eval"]
        longest = sorted(((value, group) for group, value in rest.items()), reverse=True)[:3]
        named = ", ".join(
            f"{'input' if group == 'train' else group} {duration(value)}" for value, group in longest if value >= 0.05
        )
        return (
            f"{duration(self.total)}: training {shares['compute']:.0%}, scoring {shares['eval']:.0%}, "
            f"everything else {shares['else']:.0%}" + (f" ({named})" if named else "")
        )

    def rows(self) -> list[list[str]]:
        """One row per group: parts, duration, share; groups below 0.1 % are omitted; the total comes last."""
        lines = []
        for group, value in self.groups.items():
            if value < self.total / 1000:
                continue
            parts = ", ".join(f"{part} {duration(spent)}" for part, spent in self.parts(group).items() if spent >= 0.05)
            lines.append([group, parts or GROUPS[group], duration(value), f"{value / self.total:.1%}"])
        return [*lines, ["all", "", duration(self.total), "100%"]]


def seconds_of(story: Story) -> Seconds:
    """The recorded wall-clock times of a run; all zero if there are none."""
    spent: defaultdict[str, float] = defaultdict(float)
    for entry in story.timings:
        for kind, value in entry.get("seconds", {}).items():
            spent[kind] += value
    return Seconds(dict(spent))


def run_facts(story: Story, environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """When, how long, on what kind of machine, and with which version: (name, text), those that are known."""
    dates = [entry["at"] for entry in story.timings if isinstance(entry.get("at"), int)]
    clock = seconds_of(story)
    system, cpus = str(environment.get("platform", "")).partition("-")[0], environment.get("cpus")
    known = {
        "Finished" if story.answer else "Latest record": _day(max(dates)) if dates else "",
        "Duration": duration(clock.total) if clock.total else "",
        "Machine": ", ".join(part for part in (system, f"{cpus} CPUs" if cpus else "") if part),
        "msft version": str(story.header.get("msft", "")),
    }
    return [(name, value) for name, value in known.items() if value]


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
