"""summary.json: one stable, versioned object per run (design 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msft.core.vocabulary import Task
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import mean
from msft.report.cost import flops, holdings
from msft.report.final_path import final_path
from msft.report.gains import gains_of
from msft.report.rollouts import Rollout
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story
from msft.report.trail import Point

VERSION = 1
"""Increased when a key of the summary changes its meaning or is removed, not when a key is added."""


def summarise(folder: RunFolder) -> dict[str, Any]:
    """The summary of a run, finished or not. Raises RunError if the folder holds no readable run.

    Metrics are in [0, 1]; null if something was not measured (yet) or is NaN. Epochs are positions along the
    trajectory. `msft.report.seconds` defines the seconds, `flops` and `disk` of this module the FLOPs and bytes.
    """
    return summary_of(read_story(folder))


def summary_of(story: Story) -> dict[str, Any]:
    """The same for a story that has already been read."""
    answer = story.answer
    base, validation = _reports(story, story.base.reports), _reports(story, answer.reports if answer else {})
    test = {which: _reports(story, o.reports) for which, o in story.test.items()}
    return {
        "version": VERSION,
        "msft": story.header.get("msft"),
        "method": story.header.get("method"),
        "answer": _answer(story, answer) if answer else None,
        **({"aggregate": story.aggregate} if story.aggregate is not None else {}),
        **({"groups": {name: list(members) for name, members in story.groups.items()}} if story.groups else {}),
        "rollouts": [_rollout(rollout) for rollout in story.rollouts],
        "base": base,
        "validation": validation,
        **({"refit": _refit(story)} if story.refit else {}),
        "test": {which: test.get(which, {}) for which in ("base", "answer")},
        "macro": {
            "validation": {"base": _macro(story, base), "answer": _macro(story, validation)},
            "test": {which: mean(_of_entries(story, test.get(which, {}))) for which in ("base", "answer")},
        },
        "flops": flops(story),
        "headroom": None if (gains := gains_of(story)) is None else gains.as_json(),
        "seconds": seconds_of(story).as_json(),
        "disk": disk(story),
    }


def _answer(story: Story, answer: Point) -> dict[str, Any]:
    excluded = [{"task": each.task, "epoch": each.epoch} for each in final_path(story).excluded]
    return {"snapshot": answer.snapshot, "epoch": answer.epoch, "rollout": answer.rollout, "excluded": excluded}


def _refit(story: Story) -> dict[str, Any]:
    """The point that the run on all rows followed, and its validation scores: the final model has none."""
    chosen = story.chosen
    assert chosen is not None, "a run on all rows follows a search"
    reports = _reports(story, chosen.reports)
    return {
        "follows": {"snapshot": chosen.snapshot, "epoch": chosen.epoch, "rollout": chosen.rollout},
        "validation": reports,
        "macro": _macro(story, reports),
        "held_out": dict(zip(story.tasks, story.brief.held or (), strict=True)),
    }


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout": rollout.number,
        "parent": rollout.start.snapshot,
        "active": list(rollout.active),
        "excluded": list(rollout.excluded),
        "snapshot": rollout.went_on.snapshot,
        "epoch": rollout.went_on.epoch,
        **({} if rollout.why == "search" else {"why": rollout.why}),
    }


def _reports(story: Story, reports: Mapping[Task, float]) -> dict[Task, float | None]:
    """In the order of the configuration."""
    names = [name for task in story.names for name in (task, *story.groups.get(task, ()))]
    return {t: reports[t] if math.isfinite(reports[t]) else None for t in names if t in reports}


def _of_entries(story: Story, reports: Mapping[Task, float | None]) -> list[float | None]:
    """What the macro-average is made of: an aggregate stands beside it."""
    return [score for name, score in reports.items() if name != story.aggregate]


def _macro(story: Story, reports: Mapping[Task, float | None]) -> float | None:
    return mean([reports.get(task) for task in story.tasks])


def disk(story: Story) -> dict[str, float]:
    """Bytes of the snapshots held: maximum, mean over training steps, and the value for plain fine-tuning.

    While a segment runs, its parent and the snapshots that the method may still request are held, or with
    `snapshots.max` a selection of them; at its end, its own snapshot too. Steps that were repeated because of
    `snapshots.max` count, steps repeated after a crash do not. Plain fine-tuning holds two: its last and its best.
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
