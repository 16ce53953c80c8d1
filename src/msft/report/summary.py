"""summary.json: a run in one stable, versioned object (design 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msft.core.vocabulary import Task
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import mean
from msft.report.cost import flops, holdings
from msft.report.seconds import seconds_of
from msft.report.story import Rollout, Story, read_story

VERSION = 1
"""Raised when a key of the summary changes its meaning or goes; a new key does not raise it."""


def summarise(folder: RunFolder) -> dict[str, Any]:
    """The summary of a run, finished or not. Raises RunError where the folder holds none that can be read.

    Reports are in [0, 1]; null where something was not measured (yet) or is not a number. Epochs are positions along
    the trajectory; seconds as `msft.report.seconds` says, FLOPs and bytes as `flops` and `disk` of this module.
    """
    return summary_of(read_story(folder))


def summary_of(story: Story) -> dict[str, Any]:
    """The same of a story that is read already."""
    answer = story.answer
    base, validation = _reports(story, story.base.reports), _reports(story, answer.reports if answer else {})
    test = {which: _reports(story, o.reports) for which, o in story.test.items()}
    return {
        "version": VERSION,
        "msft": story.header.get("msft"),
        "method": story.header.get("method"),
        "answer": {"snapshot": answer.snapshot, "epoch": answer.epoch, "rollout": answer.rollout} if answer else None,
        "rollouts": [_rollout(rollout) for rollout in story.rollouts],
        "base": base,
        "validation": validation,
        "test": {which: test.get(which, {}) for which in ("base", "answer")},
        "macro": {
            "validation": {"base": _macro(story, base), "answer": _macro(story, validation)},
            "test": {which: mean(list(test.get(which, {}).values())) for which in ("base", "answer")},
        },
        "flops": flops(story),
        "seconds": seconds_of(story).as_json(),
        "disk": disk(story),
    }


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout": rollout.number,
        "parent": rollout.start.snapshot,
        "active": list(rollout.active),
        "excluded": list(rollout.excluded),
        "snapshot": rollout.went_on.snapshot,
        "epoch": rollout.went_on.epoch,
    }


def _reports(story: Story, reports: Mapping[Task, float]) -> dict[Task, float | None]:
    """In the order of the configuration."""
    return {t: reports[t] if math.isfinite(reports[t]) else None for t in story.tasks if t in reports}


def _macro(story: Story, reports: Mapping[Task, float | None]) -> float | None:
    return mean([reports.get(task) for task in story.tasks])


def disk(story: Story) -> dict[str, float]:
    """Bytes of the snapshots held: at most, and on average over training steps, against plain fine-tuning's.

    While a segment runs, its parent and what the method may still ask for are held, or with `snapshots.max` what was
    chosen of it; at its end its own snapshot is there as well. Steps that were taken again count too, what a crash
    cost does not. Plain fine-tuning that keeps its tip and its best holds two.
    """
    held, two = holdings(story)
    spans = [span for each in held for span in ((each.during, each.steps), *((b, steps) for b, _, steps in each.again))]
    steps = sum(count for _, count in spans)
    weighted = sum(size * count for size, count in spans)
    return {
        "peak_bytes": max((each.most for each in held), default=0),
        "mean_bytes": weighted / steps if steps else 0.0,
        "sft_bytes": two,
    }
