"""Where a run's wall-clock went: `seconds` of summary.json, and the same in words and rows."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msft.report.story import Story
from msft.report.words import duration
from msft.system.stopwatch import OTHER

GROUPS = {
    "start": "loading libraries, data and model, and trying the run folder",
    "train": "optimizer steps: forward and backward passes, the update, what they are fed",
    "eval": "scores: base model, ticks, roll-back points, test",
    "probe": "probes",
    "snapshot": "copying the state, and waiting until it is safe",
    "restore": "roll-backs",
    "recompute": "training again what snapshots.max had let go of, or a crash had taken",
    "record": "journal, live view, trackers, page",
    "export": "the final model",
    OTHER: "what no kind names",
}
"""What the groups hold. The kinds of `msft.system.stopwatch` are `group` or `group.part`."""
COMPUTE = ("train.compute", "train.optimizer", "train")
"""What training is made of. Runs of early versions told `train` as one, feeding included."""


@dataclass(frozen=True)
class Seconds:
    """Wall-clock of all sittings of a run, recovery and work that was done again included."""

    kinds: dict[str, float]

    @cached_property
    def groups(self) -> dict[str, float]:
        """Seconds of each of `GROUPS`; what this version does not know is `other`."""
        spent = dict.fromkeys(GROUPS, 0.0)
        for kind, value in self.kinds.items():
            group = kind.partition(".")[0]
            spent[group if group in GROUPS else OTHER] += value
        return spent

    @property
    def total(self) -> float:
        return math.fsum(self.kinds.values())

    def parts(self, group: str) -> dict[str, float]:
        """Seconds of the parts of a group that has any, by their own names, the longest first."""
        inner = {kind.partition(".")[2]: value for kind, value in self.kinds.items() if kind.startswith(f"{group}.")}
        return dict(sorted(inner.items(), key=lambda entry: -entry[1]))

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the total: `compute` (forward, backward, update), `eval` (all scoring), `else`; empty without any.

        On a GPU the update runs on beside the host, which waits for it in what follows.
        """
        if not self.total:
            return {}
        compute = sum(self.kinds.get(kind, 0.0) for kind in COMPUTE) / self.total
        scoring = self.groups["eval"] / self.total
        return {"compute": compute, "eval": scoring, "else": max(0.0, 1.0 - compute - scoring)}

    def as_json(self) -> dict[str, Any]:
        """As summary.json has it: seconds by group, their `total`, `parts` of groups, and `shares` of the total."""
        parts = {group: found for group in GROUPS if (found := self.parts(group))}
        return {**self.groups, "total": self.total, "parts": parts, "shares": self.shares}

    @property
    def in_words(self) -> str:
        """One line: the total, the shares, and what of everything else takes longest."""
        if not self.total:
            return duration(0.0)
        shares, rest = self.shares, {**self.groups, "train": self.groups["train"] - self.shares["compute"] * self.total}
        del rest["eval"]
        longest = sorted(((value, group) for group, value in rest.items()), reverse=True)[:3]
        named = ", ".join(
            f"{'feeding' if group == 'train' else group} {duration(value)}" for value, group in longest if value >= 0.05
        )
        return (
            f"{duration(self.total)}: training {shares['compute']:.0%}, scoring {shares['eval']:.0%}, "
            f"everything else {shares['else']:.0%}" + (f" ({named})" if named else "")
        )

    def rows(self) -> list[list[str]]:
        """Each group with its parts, duration and share; what took less than a thousandth is left out; the total."""
        lines = []
        for group, value in self.groups.items():
            if value < self.total / 1000:
                continue
            parts = ", ".join(f"{part} {duration(spent)}" for part, spent in self.parts(group).items() if spent >= 0.05)
            lines.append([group, parts or GROUPS[group], duration(value), f"{value / self.total:.1%}"])
        return [*lines, ["all", "", duration(self.total), "100%"]]


def seconds_of(story: Story) -> Seconds:
    """What the run's clock says; nothing where none was kept."""
    spent: defaultdict[str, float] = defaultdict(float)
    for entry in story.timings:
        for kind, value in entry.get("seconds", {}).items():
            spent[kind] += value
    return Seconds(dict(spent))
