"""Reports on runs of methods that use words which no method of the package uses."""

from __future__ import annotations

import io
import time
from pathlib import Path

from methods_of_every_word import OWN
from rich.console import Console
from run_folders import make_run

from msft.cli.view import View
from msft.report.lanes import lane_figure
from msft.report.story import read_story
from msft.report.summary import summary_of


def test_a_sub_dataset_that_is_trained_in_part_is_not_called_excluded(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", "halves", names=("a", "b"), own=OWN["halves"]))
    assert [rollout.active for rollout in story.rollouts] == [("a", "b"), ("b",), ("a", "b")]
    assert [rollout["excluded"] for rollout in summary_of(story)["rollouts"]] == [["a"], [], []]
    names = [trace["name"] for trace in lane_figure(story)["views"][0]]
    assert names == ["trained in full", "trained in part", "replayed in part"]
    lanes = str(lane_figure(story)["views"][0])
    assert "b: trained, 50% of it" in lanes and "a: replayed, epoch" in lanes and "b: replayed" not in lanes
    view, shown = View(story.brief, "halves", time.monotonic), []
    for segment, _ in story.segments:
        view.begins(segment)
        console = Console(file=io.StringIO(), width=100)
        console.print(view)
        shown.append(console.file.getvalue())  # type: ignore[attr-defined]
    assert "active 50%" in shown[0] and "replayed" not in shown[0]
    assert "replayed" in shown[1]
