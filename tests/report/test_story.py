from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import NAMES, make_run, resumed_with, with_header

from msft.core.errors import RunError
from msft.methods import METHODS
from msft.record.run_folder import RunFolder
from msft.report.card import Form, card
from msft.report.differing import settings_in_words
from msft.report.page import page
from msft.report.several import Run
from msft.report.story import read_story
from msft.report.verdict import is_plain_sft_of
from msft.report.words import answer, decision, decisions


@pytest.mark.parametrize("method", sorted(METHODS))
def test_places_agree_with_the_search_and_the_past_is_complete(method: str, tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", method, horizon=8.0))
    for segment, _ in story.segments:
        # The search keeps its own account of positions.
        assert story.trail.points[segment.parent].epoch == pytest.approx(segment.epoch, abs=1e-9)
    trained = [number for number, (segment, _) in enumerate(story.segments, start=1) if segment.trains]
    assert [p.snapshot for r in story.rollouts for p in r.points[1:]] == trained
    assert story.answer is not None
    assert story.trunk[0] is story.base


def test_every_sub_dataset_of_a_full_search_leaves_once(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", params={"smooth": 1}))
    excluded = [task for rollout in story.rollouts for task in rollout.excluded]
    assert sorted(excluded) == sorted(NAMES)
    for before, after in zip(story.rollouts, story.rollouts[1:], strict=False):
        assert after.active == tuple(task for task in before.active if task not in before.excluded)
        assert after.start.snapshot == before.went_on.snapshot
    # With replay the excluded are measured again where the search turns: nothing of that may get lost.
    assert all(set(rollout.went_on.scores) == set(NAMES) for rollout in story.rollouts)


@settings(max_examples=25, deadline=None)
@given(
    peaks=st.tuples(*[st.floats(0.3, 9.0)] * 3),
    budget=st.sampled_from([0.5, 1.0, 2.5, 4.0]),
    smooth=st.sampled_from([1, 3, 5]),
    replay=st.sampled_from([0.0, 0.1]),
)
def test_peaks_are_read_as_the_search_read_them(
    peaks: tuple[float, float, float], budget: float, smooth: int, replay: float
) -> None:
    params = {"budget": budget, "smooth": smooth, "replay": replay}
    with tempfile.TemporaryDirectory() as folder:
        story = read_story(make_run(Path(folder) / "run", names=("a", "b", "c"), peaks=peaks, params=params))
    for rollout in story.rollouts:
        for reading in rollout.readings:
            assert reading.peaked
            assert reading.best > reading.end
        if len(rollout.readings) == len(rollout.excluded) > 0:
            # The search rolls back to the lower median of the leavers' peaks.
            epochs = sorted(reading.best_epoch for reading in rollout.readings)
            assert rollout.went_on.epoch == epochs[(len(epochs) - 1) // 2]


def test_a_slow_learner_is_judged_on_the_last_stretch_only(tmp_path: Path) -> None:
    # Nothing peaks within the first budget: the roll-out goes on under its number, and is then read afresh.
    story = read_story(make_run(tmp_path / "run", names=("a",), peaks=(3.3,), params={"budget": 2.0, "smooth": 1}))
    (rollout,) = story.rollouts
    assert rollout.end.epoch == pytest.approx(4.0)
    (reading,) = rollout.readings
    assert reading.best_epoch == rollout.went_on.epoch
    assert rollout.rolled_back == rollout.end.epoch - rollout.went_on.epoch > 0


def test_decisions_in_words(tmp_path: Path) -> None:
    lines = decisions(read_story(make_run(tmp_path / "run", names=("a",), peaks=(2.0,), params={"smooth": 1})))
    assert lines == [
        "Roll-out 1, epoch 0 to 4: a peaked at epoch 2 (80.0) and fell to 60.0 by the end. "
        "Excluded: a; rolled back to epoch 2 (2 epochs discarded).",
        "The final model is the one at epoch 2, from roll-out 1 (best validation macro-average).",
    ]


def test_the_average_that_chose_the_final_model_is_named(tmp_path: Path) -> None:
    """With `average: micro`, the point with the best macro-average is another one."""
    job: dict[str, Any] = {"names": ("arc", "piqa", "boolq"), "peaks": (1.0, 2.0, 3.5), "horizon": 4.0}
    story = read_story(
        make_run(tmp_path / "run", "sft", average="micro", validation_sizes=(10, 10, 1000), items=0, **job)
    )
    macro = {p.snapshot: sum(p.scores[task] for task in story.tasks) for p in story.trail.points.values()}
    assert story.answer is not None and macro[story.answer.snapshot] < max(macro.values())
    assert answer(story).endswith("(best average over all validation items).")
    assert "Chosen by: average over all validation items." in page(story, {})
    plain = read_story(make_run(tmp_path / "plain", "sft", **job))
    assert answer(plain).endswith("(best validation macro-average).") and "Chosen by" not in page(plain, {})


def test_smoothed_scores_are_told_apart_from_measured_ones(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", names=("a",), peaks=(2.0,), params={"smooth": 3}))
    (rollout,) = story.rollouts
    scores = [point.scores["a"] for point in rollout.points]
    peak = [point.epoch for point in rollout.points].index(rollout.readings[0].best_epoch)
    mean, end = sum(scores[peak - 1 : peak + 2]) / 3, sum(scores[-2:]) / 2
    assert decision(rollout).startswith(
        f"Roll-out 1, epoch 0 to 4: a peaked at epoch 1.8 with {100 * scores[peak]:.1f} (smoothed {100 * mean:.1f}) "
        f"and ended with {100 * scores[-1]:.1f} (smoothed {100 * end:.1f}). Excluded: a; "
    )
    assert f"{100 * scores[peak]:.1f}" != f"{100 * mean:.1f}"


def test_a_fall_that_rounds_to_nothing_is_told_as_a_small_one(tmp_path: Path) -> None:
    (rollout,) = read_story(make_run(tmp_path / "run", names=("a",), peaks=(2.0,), params={"smooth": 1})).rollouts
    (reading,) = rollout.readings
    told = decision(replace(rollout, readings=[replace(reading, end=reading.best - 1e-4)]))
    assert "a peaked at epoch 2 (80.0) and fell by less than 0.1 by the end" in told


def test_an_unfinished_run_is_told_as_far_as_it_went(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", stop_after=3))
    assert story.answer is None
    assert story.best_known.snapshot == story.tip.snapshot == 3
    assert decisions(story) == [f"Not finished: the search is at epoch {story.tip.epoch:.2f}."]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"journal\.jsonl"):
        read_story(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("method", "same"),
    [("msft", " and with the same exclusions"), ("self_distil", " and with the same teachers"), ("sft", "")],
)
def test_a_run_on_all_rows_says_what_it_took_over(tmp_path: Path, method: str, same: str) -> None:
    story = read_story(make_run(tmp_path / "run", method, held=dict.fromkeys(NAMES, 5)))
    assert f"from the base model, for the same epochs{same}, on all rows: those" in answer(story)


RATE = ("config", "training.learning_rate")
BEGAN = {"training.learning_rate": 1e30, "datasets.arc.path": "old/arc.jsonl", "snapshots.max": None}


def began(place: Path) -> RunFolder:
    config = {"method.name": "sft", **BEGAN}
    environment = {"python": "3.11", "libraries": {"torch": "2.1"}}
    return with_header(make_run(place, "sft", horizon=2.0), config=config, environment=environment)


def test_a_rate_that_replaced_another_before_any_training_is_the_rate_of_the_run(tmp_path: Path) -> None:
    run = resumed_with(began(tmp_path / "run"), 1, RATE, 1e30, 0.01)
    story = read_story(run)
    assert story.config["training.learning_rate"] == 0.01 and story.header["config"]["training.learning_rate"] == 1e30
    assert "| training.learning\\_rate | 0.01 |" in card(story, Form(kind="model"))
    assert "1e+30" not in page(story, {}) + card(story, Form(kind="model"))
    other = with_header(make_run(tmp_path / "other", "sft", horizon=2.0), **{
        part: {**story.header[part], **changed}
        for part, changed in (("config", {"training.learning_rate": 0.01}), ("environment", {}))
    })  # fmt: skip
    runs = [Run(name=each.path.name, story=read_story(each)) for each in (run, other)]
    assert settings_in_words(runs) == "Their settings are the same."
    assert is_plain_sft_of(runs[0].story, runs[1].story)


def test_a_rate_that_was_changed_midway_is_told_with_the_first_one(tmp_path: Path) -> None:
    """Two runs that differ only in this are not the same job."""
    run = resumed_with(began(tmp_path / "run"), 5, RATE, 1e30, 0.01)
    story, whole = read_story(run), read_story(began(tmp_path / "whole"))
    said = "1e+30, from segment 5 on 0.01"
    assert story.config["training.learning_rate"] == said
    assert f"| training.learning\\_rate | {said} |" in card(story, Form(kind="model")) and said in page(story, {})
    runs = [Run(name="", story=each) for each in (story, whole)]
    assert settings_in_words(runs) == f"They differ in: training.learning_rate ({said}, 1e+30)."
    assert not is_plain_sft_of(whole, story)
    again = read_story(resumed_with(run, 7, RATE, 0.01, 0.001))
    assert again.config["training.learning_rate"] == f"{said}, from segment 7 on 0.001"
    undone = read_story(resumed_with(began(tmp_path / "undone"), 5, RATE, 1e30, 1e30))
    assert undone.config["training.learning_rate"] == 1e30
    unused = read_story(resumed_with(began(tmp_path / "unused"), len(story.segments) + 1, RATE, 1e30, 0.01))
    assert unused.config["training.learning_rate"] == 1e30, "no segment had the new rate"


def test_paths_are_the_latest_and_versions_all_that_were_used(tmp_path: Path) -> None:
    run = resumed_with(began(tmp_path / "run"), 3, ("config", "datasets.arc.path"), "old/arc.jsonl", "new/arc.jsonl")
    run = resumed_with(run, 3, ("environment", "libraries", "torch"), "2.1", "2.2")
    run = resumed_with(run, 4, ("environment", "sharded_over"), None, 2)
    story = read_story(run)
    assert story.config["datasets.arc.path"] == "new/arc.jsonl" and story.config["snapshots.max"] is None
    assert "python 3.11, torch 2.1, from segment 3 on 2.2" in card(story, Form(kind="model"))
    assert "from segment 4 on 2" in page(story, {})
