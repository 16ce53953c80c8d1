"""What the page says of each sub-dataset, with the standard errors behind it."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import make_run, with_header

from msft.core.schedule import learning_rate
from msft.core.vocabulary import ROOT
from msft.report.base_and_answer import compare
from msft.report.downloads import score_rows
from msft.report.figures import Curves
from msft.report.final_path import final_path
from msft.report.heat_map import AVERAGE, PALE, heat_map
from msft.report.lanes import circled, lane_figure
from msft.report.page import page
from msft.report.rollouts import Reading
from msft.report.standard_errors import Errors, told_fall
from msft.report.story import Story, read_story
from msft.report.sub_datasets import endings, rows_table
from msft.report.training_curves import training_figures

MANY = tuple(f"task_{i:02d}" for i in range(21))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    run = make_run(tmp_path_factory.mktemp("run") / "run", items=40)
    config = {"training.learning_rate": 2e-5, "training.schedule": "linear", "training.warmup": 0.1}
    return read_story(with_header(run, config=config))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Story:
    peaks = tuple(0.6 + 0.35 * i for i in range(21))
    return read_story(make_run(tmp_path_factory.mktemp("many") / "run", names=MANY, peaks=peaks, items=30))


def with_items(story: Story, items: dict[int, tuple[float, ...]], scores: dict[int, float]) -> Errors:
    """Its errors, as if these were the items and scores of `arc`."""
    errors = Errors(story)
    errors.items = {(snapshot, "arc"): values for snapshot, values in items.items()}
    points = {n: replace(p, scores={**p.scores, "arc": scores.get(n, 0.5)}) for n, p in story.trail.points.items()}
    errors.story = replace(story, trail=type(story.trail)(story.brief))
    errors.story.trail.points |= points
    return errors


def test_differences_are_paired_over_items(story: Story) -> None:
    one, other = (1.0, 0.0, 1.0, 1.0, 0.0), (1.0, 0.0, 0.0, 1.0, 0.0)
    errors = with_items(story, {1: one, 2: other}, {1: 0.6, 2: 0.4})
    found = errors.of("arc", [1], [2])
    assert found is not None and not found.at_most
    gaps = [a - b for a, b in zip(one, other, strict=True)]
    assert found.size == pytest.approx(statistics.stdev(gaps) / math.sqrt(5))
    # Over means of several evaluations, of the mean of each item.
    found = errors.of("arc", [1, 2])
    means = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
    assert found is not None and found.size == pytest.approx(statistics.stdev(means) / math.sqrt(5))


def test_log_probabilities_are_carried_to_the_score(story: Story) -> None:
    logs = (-1.0, -2.0, -0.5, -1.5)
    score = math.exp(statistics.mean(logs))
    found = with_items(story, {1: logs}, {1: score}).of("arc", [1])
    assert found is not None and found.size == pytest.approx(score * statistics.stdev(logs) / 2)


def test_without_items_the_number_of_items_bounds_it(story: Story) -> None:
    errors = with_items(story, {}, {1: 0.5, 2: 0.0})
    found = errors.of("arc", [1])
    assert found is not None and found.at_most and str(found) == "± ≤7.9"
    at_zero = errors.of("arc", [2])
    assert at_zero is not None and at_zero.size > 0.03, "40 wrong answers do not prove that all would be wrong"
    measures = {task: {"name": "loss", "control": "control"} for task in story.tasks}
    unknown = Errors(replace(story, header={**story.header, "measures": measures}))
    unknown.items = {}
    assert unknown.of("arc", [1]) is None


def test_a_fall_is_told_with_its_evidence(story: Story) -> None:
    reading = Reading(task="arc", best=0.5, best_epoch=1, end=0.3, peaked=True, best_at=(1,), end_at=(2,))
    clear = with_items(story, {1: (0.6, 0.4) * 20, 2: (0.35, 0.25) * 20}, {1: 0.5, 2: 0.3}).fall(reading)
    assert re.fullmatch(r"20\.0 ± \d\.\d, clear", told_fall(reading, clear))
    weak = with_items(story, {}, {1: 0.5, 2: 0.3}).fall(reading)
    assert told_fall(reading, weak) == "20.0 ± ≤10.8, weak"
    assert told_fall(reading, None) == "20.0"
    assert told_fall(replace(reading, peaked=False), None) == "–"


def test_readings_name_the_evaluations_of_their_means(story: Story) -> None:
    scores = {n: p.scores for n, p in story.trail.points.items()}
    readings = [reading for rollout in story.rollouts for reading in rollout.readings]
    assert readings
    for each in readings:
        assert statistics.mean(scores[n][each.task] for n in each.best_at) == pytest.approx(each.best)
        assert statistics.mean(scores[n][each.task] for n in each.end_at) == pytest.approx(each.end)


def test_each_row_says_until_when_it_was_trained_and_why_no_longer(story: Story) -> None:
    path = final_path(story)
    found = endings(story, path)
    excluded = {each.task: each.epoch for each in path.excluded}
    assert excluded and story.answer is not None
    for task, ending in found.items():
        at = excluded.get(task, story.answer.epoch)
        assert ending.until == f"{at:.2f}".rstrip("0").rstrip(".") + (" ✕" if task in excluded else "")
        assert ("±" in ending.fall) == (task in excluded)
    comparison = compare(story)
    content = rows_table(story, path, comparison)
    assert content.count("<tr") == 2 + len(story.tasks)
    # A drawing is right of the middle where the change is positive, and coloured where its interval is.
    for row, drawn in zip([*comparison.rows, comparison.macro], re.findall(r"<svg.*?</svg>", content)[1:], strict=True):
        assert row.difference is not None and row.interval is not None
        dot = re.search(r'<circle cx="([\d.]+)"', drawn)
        assert dot is not None and (float(dot[1]) > 70) == (row.difference > 0)
        assert ('class="up"' in drawn) == (row.interval[0] > 0)


def test_the_numbers_on_the_timeline_are_those_of_the_list(story: Story) -> None:
    content, marks = page(story, {}), lane_figure(story)["marks"]
    path = final_path(story)
    for number, rollout in enumerate(story.rollouts, start=1):
        assert f'<span class="number">{circled(number)}</span> Roll-out {rollout.number}' in content
        at = [x for x, text in marks[0] if circled(number) in text]
        if path.follows(rollout) and rollout.excluded:
            assert at == pytest.approx([rollout.went_on.epoch], rel=1e-4)
        else:
            assert not at
        assert circled(number) in "".join(text for _, text in marks[1])
    assert [circled(n) for n in (1, 20, 21, 36, 51)] == ["①", "⑳", "㉑", "㊱", "(51)"]


def test_small_multiples_share_one_scale_that_holds_all(story: Story) -> None:
    curves = [Curves(story).single(task) for task in story.tasks]
    (low, high), *others = [made["layout"]["yaxis"]["range"] for made in curves]
    assert all(other == [low, high] for other in others)
    for task, made in zip(story.tasks, curves, strict=True):
        assert all(low < y < high for trace in made["data"] for y in trace["y"]
                   if y is not None and "standard error" not in trace["name"])  # fmt: skip
        (smooth,) = [trace for trace in made["data"] if trace["name"] == f"{task}, mean over 5 evaluations"]
        assert smooth["y"]


def test_the_heat_map_holds_every_change_of_the_final_path(many: Story) -> None:
    path = final_path(many)
    made = heat_map(many, path)
    clear, pale, veil, _ = made["views"][0]
    assert not any(x is not None for row in veil["z"] for x in row), "nothing of the final path was discarded"
    assert any(x is not None for row in made["views"][1][2]["z"] for x in row)
    assert pale["opacity"] == PALE
    errors, known = Errors(many), 0
    for column, point in enumerate(path.points[1:]):
        assert clear["x"][column + 1] == pytest.approx(point.epoch, rel=1e-4)
        for row, task in enumerate(many.tasks):
            z = (clear["z"][row][column], pale["z"][row][column])
            if task not in point.scores:
                assert z == (None, None)
                continue
            change, error = point.scores[task] - many.base.scores[task], errors.of(task, [point.snapshot], [ROOT])
            assert error is not None
            assert z[abs(change) <= 2 * error.size] == pytest.approx(100 * change, abs=1e-3)
            known += 1
    assert known > 200
    assert made["layout"]["yaxis"]["ticktext"][-1] == AVERAGE


def test_training_is_drawn_with_the_rates_of_the_schedule(story: Story) -> None:
    figures = training_figures(story, Curves(story))
    assert list(figures) == ["loss", "rate", "speed"]
    (rate,) = [trace for trace in figures["rate"][1]["data"] if trace["name"] == "learning rate"]
    for (epoch, *_), value in zip(rate["customdata"], rate["y"], strict=True):
        if value is not None:
            assert value == pytest.approx(learning_rate(2e-5, "linear", 0.1, 10.0, epoch), rel=1e-3)
    (speed,) = [trace for trace in figures["speed"][1]["data"] if trace["name"] == "training tokens per second"]
    assert speed["y"][0] == pytest.approx(story.segments[0][1].tokens.train / 1.5, rel=1e-4)


def test_the_files_hold_every_score(story: Story) -> None:
    rows = score_rows(story)
    validation = [row for row in rows if row["split"] == "validation"]
    assert len(validation) == sum(len(point.scores) for point in story.trail.points.values())
    assert {row["snapshot"] for row in validation if row["in_final_path"]} == final_path(story).snapshots
    assert len(rows) - len(validation) == 2 * len(story.tasks)


def test_what_is_known_of_the_run_is_shown_and_no_path_is_a_title(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", stop_after=3)
    run.add_timing({"kind": "end", "number": None, "seconds": {}, "at": 1_790_000_000})
    with_header(run, model={"name": "/home/someone/models/Smol-1B", "parameters": 1000, "bytes": 4000})
    content = page(read_story(run), {"platform": "Linux-6.1-x86_64", "cpus": 2})
    assert "<h1>msft on Smol-1B, 4 sub-datasets" in content and "/home/someone" not in content
    for name, value in (("Latest record", "2026-09-21 14:13 UTC"), ("Machine", "Linux, 2 CPUs"), ("Duration", "6.0 s")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in content


def test_a_roll_out_that_excludes_nothing_is_part_of_the_final_model(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", "sft", items=40))
    content = page(story, {})
    assert '<span class="number">①</span> Roll-out 1' in content and "not part of the final model" not in content
    assert story.answer is not None and len(story.rollouts) == 1
    assert lane_figure(story)["marks"][0] == [(pytest.approx(story.answer.epoch, rel=1e-4), "①")]
