"""Reports on runs of methods that use words which no method of the package uses."""

from __future__ import annotations

import io
import time
from itertools import pairwise
from pathlib import Path

import pytest
from methods_of_every_word import OWN
from rich.console import Console
from run_folders import make_run
from transformers import TrainerCallback

from msft.api.config import MSFTConfig
from msft.api.events import Events
from msft.core.plain_words import many
from msft.record.run_folder import RunFolder
from msft.report.cost import holdings
from msft.report.figures import Curves
from msft.report.final_path import final_path
from msft.report.lanes import lane_figure
from msft.report.page import write_page
from msft.report.story import read_story
from msft.report.sub_datasets import endings
from msft.report.summary import summary_of
from msft.report.words import decisions, percent
from msft.screen.display import Display
from msft.screen.view import View


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


def test_a_merger_excludes_nobody_and_says_what_it_is_made_of(tmp_path: Path) -> None:
    made = make_run(
        tmp_path / "run", "merge", names=("a", "b"), peaks=(2.0, 5.0), params={"how": "ties"}, select="last"
    )
    story = read_story(made)
    said = decisions(story)
    assert said[:4] == [
        "Roll-out 1, epoch 0 to 10: a candidate for the final model.",
        "Roll-out 2, epoch 0 to 10: a candidate for the final model.",
        "The model of a, trained on it alone, is that of epoch 2.",
        "The model of b, trained on it alone, is that of epoch 5.",
    ]
    assert said[4].startswith("The final model is the TIES merger of 2 snapshots at epoch 5")
    assert not any(rollout.excluded or rollout.rolled_back for rollout in story.rollouts)
    assert final_path(story).snapshots >= {part for part, _ in story.segments[-1][0].blend}
    write_page(made, tmp_path / "page.html")
    path = final_path(story)
    assert {task: ending.until for task, ending in endings(story, path).items()} == {"a": "2", "b": "5"}
    bars = [(trace["y"][i], trace["base"][i], round(trace["x"][i], 6))
            for trace in lane_figure(story)["views"][0] for i in range(len(trace["x"])) if trace["x"][i]]  # fmt: skip
    assert sorted(bars) == [(0, 0.0, 2.0), (1, 0.0, 5.0)], "both, though only one lies on the path of parents"


def test_a_branch_that_was_meant_to_end_is_no_roll_back(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", "decays", names=("a", "b"), peaks=(2.0, 5.0), own=OWN["decays"]))
    whys = [rollout.why for rollout in story.rollouts]
    assert whys == ["search", "candidate", "search", "candidate", "search", "candidate", "search", "final"]
    assert not any(rollout.rolled_back for rollout in story.rollouts)
    excluded = [rollout.excluded for rollout in story.rollouts]
    assert excluded == [(), (), ("a",), (), (), (), (), ()], "what is excluded after a candidate belongs to the search"
    said = decisions(story)
    assert said[1] == "Roll-out 1, epoch 2 to 2.64: a candidate for the final model."
    assert not [line for line in said if "rolled back" in line or "discarded" in line]
    assert [entry.get("why") for entry in summary_of(story)["rollouts"]] == [None, "candidate"] * 3 + [None, "final"]
    # The end of the search is that of the last branch, and each search starts where the one before it ended.
    assert story.tip.snapshot == len(story.segments)
    searches = [rollout for rollout in story.rollouts if rollout.why == "search"]
    for before, after in pairwise(searches):
        assert before.went_on.snapshot == before.end.snapshot == after.start.snapshot
    assert "rolled back" not in str(Curves(story).average())
    write_page(RunFolder(tmp_path / "run"), tmp_path / "page.html")


def test_neither_the_screen_nor_a_callback_calls_it_one(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", "decays", names=("a", "b"), peaks=(2.0, 5.0), own=OWN["decays"]))
    told: list[str] = []

    class Callback(TrainerCallback):
        def on_exclusion(self, *_: object, tasks: list[str]) -> None:
            told.append(f"excluded {tasks}")

        def on_roll_back(self, *_: object, **__: object) -> None:
            told.append("rolled back")

    events, console = Events(MSFTConfig(output_dir=str(tmp_path)), [Callback]), Console(file=io.StringIO(), width=300)
    with Display(console) as display:
        for watcher in (events, display):
            watcher.begin(story.brief, "decays")
            for number, (segment, outcome) in enumerate(story.segments, 1):
                watcher.segment(number, segment)
                watcher.outcome(number, segment, outcome)
    assert told == ["excluded ['a']"]
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line for line in lines if line.startswith("decision")] == [
        "decision  Roll-out 2, epoch 2 to 4: a peaked at epoch 2 (80.0) and fell to 60.0 by the end. Excluded: a."
    ]
    # A candidate's line shows its own scores, not those of the search.
    number = next(n for n, (segment, _) in enumerate(story.segments, 1) if segment.why == "candidate")
    a = percent(story.segments[number - 1][1].scores["a"])
    assert f"a {a}" in [line for line in lines if line.startswith("roll-out")][number - 1]


@pytest.mark.parametrize("name", ["averages", "soups", "wanders"])
def test_blends_lie_beside_the_roll_outs(tmp_path: Path, name: str) -> None:
    own = make_run(tmp_path / "run", name, names=("a", "b", "c"), own=OWN[name], horizon=3.0)
    story = read_story(own)
    trained = [number for number, (segment, _) in enumerate(story.segments, 1) if segment.trains]
    assert [point.snapshot for rollout in story.rollouts for point in rollout.points[1:]] == trained
    # What the final model was made from was not discarded, whatever else was made from it.
    assert story.answer is not None
    made_from = final_path(story).snapshots
    assert story.answer.snapshot in made_from
    for snapshot in made_from:
        assert story.trail.points[snapshot].made_of <= made_from
    if name == "soups":
        assert decisions(story)[-1].startswith("The final model is the TIES merger of 2 snapshots at epoch ")
    if name == "averages":
        assert len(story.rollouts) == 1 and len(story.segments) == 2 * len(trained) - 1
        assert set(trained) <= made_from, "each is part of the mean, or on the way to a part"
        assert story.tip.snapshot == trained[-1]
    # Each blend holds as many bytes as any snapshot.
    held, _ = holdings(story)
    for (segment, outcome), each in zip(story.segments, held, strict=True):
        assert each.end == each.during + outcome.bytes and (outcome.bytes > 0) == segment.makes
    write_page(own, tmp_path / "page.html")
    console = Console(file=io.StringIO(), width=300)
    with Display(console) as display:
        display.begin(story.brief, name)
        for number, (segment, outcome) in enumerate(story.segments, 1):
            display.segment(number, segment)
            display.outcome(number, segment, outcome)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    if name != "wanders":
        assert not [line for line in lines if line.startswith("decision")], "a blend is no roll-back"
    number, blend, outcome = next((n, s, o) for n, (s, o) in enumerate(story.segments, 1) if s.blend)
    line = next(line for line in lines if "mean of " in line)
    assert f"mean of {many(len(blend.blend), 'snapshot')}  search score: a {percent(outcome.scores['a'])}" in line
