"""What is said and drawn of the final model is what its lineage holds, read from the journal by brute force."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_folders import NAMES, make_run

from msft.record.run_folder import RunFolder
from msft.report.card import Form, card
from msft.report.cost import ledger
from msft.report.figures import Curves
from msft.report.final_path import final_path, outcome
from msft.report.lanes import DISCARDED, lane_figure
from msft.report.page import page
from msft.report.plots import short, unit
from msft.report.story import Story, read_story
from msft.report.summary import summary_of
from msft.report.table import headline, render_text
from msft.report.verdict import verdict

APART: dict[str, Any] = {"smooth": 1, "leave_within": 0.0}


@dataclass
class Lineage:
    """The segments that trained a snapshot, from the raw lines of the journal."""

    segments: list[dict[str, Any]]
    numbers: list[int]

    @classmethod
    def of(cls, run: RunFolder, snapshot: int) -> Lineage:
        bodies = [json.loads(line)["body"] for line in run.journal.read_text().splitlines()]
        made = {n: body["segment"] for n, body in enumerate(bodies[1:-1], 1)}
        numbers: list[int] = []
        while snapshot:
            numbers.insert(0, snapshot)
            snapshot = made[snapshot]["parent"]
        return cls([made[n] for n in numbers], numbers)

    def length(self, segment: dict[str, Any], sizes: dict[str, int]) -> float:
        """Epochs of a segment."""
        shares = segment["mixture"]["shares"] or [1.0] * len(segment["mixture"]["tasks"])
        parts = zip(segment["mixture"]["tasks"], shares, strict=True)
        instances = sum(math.ceil(round(share * sizes[task], 9)) for task, share in parts)
        return (segment["stop"] - segment["start"]) / math.ceil(instances / 4)

    def spans(self, sizes: dict[str, int], *, full: bool) -> dict[str, list[tuple[float, float]]]:
        """Sub-dataset to the epochs in which it was trained in full, or replayed in part."""
        found: dict[str, list[tuple[float, float]]] = {task: [] for task in sizes}
        at = 0.0
        for segment in self.segments:
            end = at + self.length(segment, sizes)
            for task, share in zip(segment["mixture"]["tasks"], shares_of(segment), strict=True):
                if (share == 1) == full:
                    found[task].append((at, end))
            at = end
        return found

    def excluded(self, sizes: dict[str, int]) -> dict[str, float]:
        """The sub-datasets that the last segment did not train in full, and where each was last trained in full."""
        spans = self.spans(sizes, full=True)
        end = sum(self.length(segment, sizes) for segment in self.segments)
        last = {task: max((b for _, b in each), default=0.0) for task, each in spans.items()}
        return {task: at for task, at in last.items() if at < end - 1e-9} if self.segments else {}


def shares_of(segment: dict[str, Any]) -> Sequence[float]:
    return segment["mixture"]["shares"] or [1.0] * len(segment["mixture"]["tasks"])


def merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1] + 1e-3:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def drawn(traces: list[dict[str, Any]], story: Story, name: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {task: [] for task in story.tasks}
    for trace in traces:
        if trace["name"] == name:
            for base, x, y in zip(trace["base"], trace["x"], trace["y"], strict=True):
                found[story.tasks[y]].append((base, base + x))
    return found


def close(one: dict[str, list[tuple[float, float]]], two: dict[str, list[tuple[float, float]]]) -> None:
    for task, spans in one.items():
        mine, other = merged(spans), merged(two[task])
        assert len(mine) == len(other), task
        assert [x for span in mine for x in span] == pytest.approx([x for span in other for x in span], rel=1e-3)


def check_one(run: RunFolder) -> str:
    """Holds summary, lanes, curves and sentence against the lineage; returns the sentence."""
    story = read_story(run)
    assert story.answer is not None
    sizes = dict(zip(story.tasks, story.brief.sizes, strict=True))
    truth = Lineage.of(run, story.answer.snapshot)
    excluded = truth.excluded(sizes)

    said = summary_of(story)["answer"]["excluded"]
    assert {each["task"]: each["epoch"] for each in said} == pytest.approx(excluded)
    assert final_path(story).snapshots == {0, *truth.numbers}

    trajectory, compute = lane_figure(story)["views"]
    close(drawn(trajectory, story, "trained in full"), truth.spans(sizes, full=True))
    close(drawn(trajectory, story, "replayed in part"), truth.spans(sizes, full=False))
    assert not any(drawn(trajectory, story, DISCARDED).values())
    spent = ledger(story)
    per = unit(spent[-1], "")[0]
    for number, (segment, _) in enumerate(story.segments, 1):
        middle = (spent[number - 1] + spent[number]) / 2 / per
        for task in segment.mixture.tasks if segment.trains else ():
            bars = drawn(compute, story, DISCARDED)[task]
            assert any(low <= middle <= high for low, high in bars) == (number not in truth.numbers)
    assert sum(trace["showlegend"] for trace in compute if trace["name"] == DISCARDED) <= 1

    curves = Curves(story)
    for task in story.tasks:
        traces = curves.single(task)["data"]
        lines = [t for t in traces if t["name"] in (task, f"{task}, discarded")]
        for kept in (True, False):
            shown = {(row[0], y) for t in lines if (t["name"] == task) == kept
                     for row, y in zip(t["customdata"], t["y"], strict=True) if y is not None}  # fmt: skip
            places = [p for p in story.trail.points.values() if task in p.scores]
            true = {(short(p.epoch), round(100 * p.scores[task], 3)) for p in places
                    if (p.snapshot in {0, *truth.numbers}) == kept}  # fmt: skip
            # A discarded branch begins with the point where it leaves the path.
            assert (shown == true) if kept else (true <= shown)
        crosses = [t for t in traces if t["name"] == f"{task}, excluded here"]
        assert bool(crosses) == (task in excluded)
    check_sentence(story, excluded)
    return outcome(story)


def check_sentence(story: Story, excluded: dict[str, float]) -> None:
    sentence, made = outcome(story), 0
    active = set(story.tasks)
    for segment, _ in story.segments:
        made += len(active - set(segment.mixture.active))
        active = set(segment.mixture.active)
    if story.answer is story.base:
        assert sentence.startswith("The final model is the base model: no ")
    elif not made:
        assert sentence.startswith("No sub-dataset was excluded: this is plain fine-tuning stopped at epoch ")
    elif not excluded:
        start = {1: "The only exclusion is not", 2: "Neither of the 2 exclusions is"}
        assert sentence.startswith(start.get(made, f"None of the {made} exclusions is") + " in the final model")
        assert f"plain fine-tuning stopped at epoch {story.answer.epoch:.2f}".rstrip("0").rstrip(".") in sentence
        assert sentence.endswith(" The search changed nothing.")
    else:
        everything = {1: "The only exclusion is", 2: "Both exclusions are"}.get(made, f"All {made} exclusions are")
        few = f"{len(excluded)} of {made} exclusions {'is' if len(excluded) == 1 else 'are'}"
        assert sentence.startswith(f"{everything if len(excluded) == made else few} in the final model: ")
        for task, epoch in excluded.items():
            at = f"{epoch:.2f}".rstrip("0").rstrip(".")
            assert re.search(rf"\b{task}\b[^;]*, excluded at epoch {re.escape(at)}[;.]", sentence)


def kinds(story: Story) -> dict[str, int]:
    """A snapshot of each kind that a final model can be."""
    first, last = story.rollouts[0], story.rollouts[-1]
    back = next(r for r in story.rollouts if r.rolled_back and r.number > 1)
    return {
        "the base model": 0,
        "an early evaluation": first.points[1].snapshot,
        "a roll-back point": back.went_on.snapshot,
        "the end of a discarded branch": back.end.snapshot,
        "the end of the search": last.end.snapshot,
    }


def test_each_kind_of_final_model_is_told_alike_everywhere(tmp_path: Path) -> None:
    whole = read_story(make_run(tmp_path / "whole", params=APART))
    said = {}
    for number, (kind, snapshot) in enumerate(kinds(whole).items()):
        run = make_run(tmp_path / str(number), params=APART, chosen=snapshot)
        said[kind] = sentence = check_one(run)
        story, out = read_story(run), io.StringIO()
        render_text(run, Console(file=out, width=500, color_system=None))
        shown = out.getvalue()
        assert shown.index(verdict(story).gain) < shown.index(f"\n{sentence}\n") < shown.index("sub-dataset  ")
        assert sentence in card(story, Form(kind="model")).replace("\\_", "_")
        content = page(story, {})
        assert content.index(sentence) < content.index("<section")
    # The same exclusion is in both: the branch began with it, and the search rolled back along it.
    assert said["a roll-back point"] == said["the end of a discarded branch"]
    assert len(set(said.values())) == 4
    assert said["an early evaluation"].startswith("None of the 4 exclusions is in the final model: this is plain")
    assert said["a roll-back point"].startswith("1 of 4 exclusions is in the final model: ")


@pytest.mark.parametrize(
    ("method", "params"),
    [("msft", APART), ("msft", {"budget": 2.0}), ("msft", {"replay": 0.0}), ("sro", {}), ("one_pass", {"patience": 3}),
     ("placebo", {})],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "default",
)  # fmt: skip
def test_whatever_snapshot_is_chosen_its_lineage_is_told(method: str, params: dict[str, Any], tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "whole", method, params=params))
    made = [n for n, (segment, _) in enumerate(story.segments, 1) if segment.trains]
    chosen = {0, *made[:: max(1, len(made) // 4)], *(r.went_on.snapshot for r in story.rollouts[:2]), made[-1]}
    for snapshot in sorted(chosen):
        check_one(make_run(tmp_path / str(snapshot), method, params=params, chosen=snapshot))


def test_a_method_that_excludes_nothing_has_no_such_sentence(tmp_path: Path) -> None:
    for method in ("sft", "continual", "dynamix"):
        story = read_story(make_run(tmp_path / method, method, horizon=3.0))
        assert outcome(story) == ""
        assert summary_of(story)["answer"]["excluded"] == []


def test_a_search_that_excluded_nothing_says_what_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", peaks=(99.0,) * 4, horizon=2.0, params={"budget": 1.0})
    assert check_one(run) == "No sub-dataset was excluded: this is plain fine-tuning stopped at epoch 2."


def test_one_and_two_exclusions_are_told_in_english(tmp_path: Path) -> None:
    one = check_one(make_run(tmp_path / "one", names=("a",), peaks=(2.0,), params=APART))
    assert one.startswith("The only exclusion is not in the final model: this is plain fine-tuning stopped at epoch 2.")
    assert "on tiny, 1 sub-dataset: finished" in headline(read_story(RunFolder(tmp_path / "one")))
    peaks = {"names": ("a", "b"), "peaks": (1.0, 3.0), "params": {**APART, "replay": 0.0}}
    assert check_one(make_run(tmp_path / "first", **peaks)).startswith("1 of 2 exclusions is in the final model: a, ")
    three: dict[str, Any] = {"names": ("a", "b", "c"), "peaks": (1.0, 1.0, 99.0), "horizon": 6.0}
    story = read_story(make_run(tmp_path / "three", **three))
    both = check_one(make_run(tmp_path / "both", chosen=story.tip.snapshot, **three))
    assert both == "Both exclusions are in the final model: a and b, excluded at epoch 1.28."


def test_a_run_in_progress_tells_the_path_of_its_latest_point(tmp_path: Path) -> None:
    whole = read_story(make_run(tmp_path / "whole", params=APART))
    turn = next(n for n, (segment, _) in enumerate(whole.segments, 1) if not segment.trains)
    cut = read_story(make_run(tmp_path / "cut", params=APART, stop_after=turn - 1))
    assert outcome(cut) == "So far, no sub-dataset is excluded."
    decided = read_story(make_run(tmp_path / "decided", params=APART, stop_after=turn))
    assert outcome(decided) == "So far: arc, excluded at epoch 0.77."
    assert final_path(decided).follows(decided.rollouts[0])
    assert {p.snapshot for p in final_path(decided).points} == {p.snapshot for p in decided.trunk}


def test_many_exclusions_are_counted_and_not_all_named(tmp_path: Path) -> None:
    names = tuple(f"set{i:02}" for i in range(12))
    job: dict[str, Any] = {"names": names, "peaks": (1.0,) * 11 + (99.0,), "horizon": 6.0}
    tip = read_story(make_run(tmp_path / "run", **job)).tip.snapshot
    sentence = outcome(read_story(make_run(tmp_path / "last", chosen=tip, **job)))
    assert sentence.startswith("All 11 exclusions are in the final model: set00, ")
    assert sentence.endswith("set06 and set07, excluded at epoch 1.25; and 3 more.")


def test_the_base_model_is_final_for_a_stated_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", names=("a",), peaks=(0.0,), horizon=1.0, method="sft")
    reason = "The final model is the base model: no training improved the validation macro-average."
    assert outcome(read_story(run)) == reason
    micro = read_story(
        make_run(tmp_path / "micro", names=("a",), peaks=(0.0,), horizon=1.0, method="sft", average="micro")
    )
    assert outcome(micro) == reason.replace("validation macro-average", "average over all validation items")
    better = read_story(make_run(tmp_path / "better", chosen=0))
    assert "no point that could become the final model" in outcome(better)
    last = replace(better, brief=replace(better.brief, select="last"))
    assert outcome(last) == "The final model is the base model: the search ended there."


def test_names_come_last_in_order_of_epochs(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", params=APART))
    exclusions = final_path(story).excluded
    assert [e.epoch for e in exclusions] == sorted(e.epoch for e in exclusions)
    assert {e.task for e in exclusions} <= set(NAMES)
