"""The headroom in reports: summary, terminal and page say one thing, and only where it was recorded."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from msft.config.schema import Config
from msft.core.headroom import Measured
from msft.report.gains import Gain, Gains, gains_of, measure, sentences
from msft.report.page import page
from msft.report.story import read_story
from msft.report.summary import summarise
from msft.report.table import render_text
from msft.study.own_moments import find, gains_over_seeds
from msft.study.reading import Evidence
from report.run_folders import make_run


@pytest.mark.parametrize("method", ["sft", "auto"])
def test_summary_terminal_and_page_show_the_headroom(tmp_path: Path, method: str) -> None:
    run = make_run(tmp_path / "run", method, items=200, horizon=6.0)
    story = read_story(run)
    gains = gains_of(story)
    assert gains is not None and gains.score.estimate > 0 and gains.score == gains.metric
    assert json.loads(json.dumps(summarise(run)["headroom"])) == json.loads(json.dumps(gains.as_json()))
    console = Console(file=io.StringIO(), width=400)
    render_text(run, console)
    shown, drawn = console.file.getvalue(), page(story, {})  # type: ignore[attr-defined]
    for sentence in sentences(gains, decided=method == "auto"):
        assert sentence in shown and sentence.replace("'", "&#x27;") in drawn
    assert "on all validation items: each half is valued at the epochs that the other half chose" in shown
    for sentence in story.explanations:
        assert sentence in shown
    assert bool(story.explanations) == (method == "auto")


@pytest.mark.parametrize(("method", "items"), [("msft", 200), ("sft", 0)])
def test_nothing_is_said_where_nothing_was_recorded(tmp_path: Path, method: str, items: int) -> None:
    run = make_run(tmp_path / "run", method, items=items, horizon=6.0)
    assert summarise(run)["headroom"] is None
    assert "Headroom" not in page(read_story(run), {})


def test_the_first_roll_out_alone_is_read(tmp_path: Path) -> None:
    """A search that follows in the same run, and a run that is cut off, change nothing before it."""
    auto = read_story(make_run(tmp_path / "auto", "auto", items=1000, horizon=6.0, peaks=(1.0, 5.0, 5.5, 6.0)))
    sft = read_story(make_run(tmp_path / "sft", "sft", items=1000, horizon=6.0, peaks=(1.0, 5.0, 5.5, 6.0)))
    assert {segment.rollout for segment, _ in auto.segments} > {1}, "the job has a search"
    assert gains_of(auto) == gains_of(sft)
    cut = make_run(tmp_path / "cut", "sft", items=1000, horizon=6.0, stop_after=10)
    gains = gains_of(read_story(cut))
    assert gains is not None and max(gains.own.values()) <= 2.5


@pytest.mark.parametrize("peaks", [(1.0, 5.0, 5.5, 6.0), (5.0, 5.0, 5.0, 5.5)])
def test_a_plain_run_says_what_auto_would_do(tmp_path: Path, peaks: tuple[float, ...]) -> None:
    job = {"items": 200, "horizon": 6.0, "peaks": peaks}
    found = gains_of(read_story(make_run(tmp_path / "sft", "sft", **job)))  # type: ignore[arg-type]
    auto = read_story(make_run(tmp_path / "auto", "auto", **job))  # type: ignore[arg-type]
    assert found is not None and found.pays is (len({segment.rollout for segment, _ in auto.segments}) > 1)
    assert found.pays is (peaks[0] == 1.0)


def test_peaks_at_one_evaluation_leave_nothing_to_gain(tmp_path: Path) -> None:
    """The halves of the items disagree on where they are, and may show a gain; all items do not."""
    job = {"names": ("arc", "piqa"), "peaks": (2.84, 2.84), "items": 60, "horizon": 4.0}
    found = gains_of(read_story(make_run(tmp_path / "sft", "sft", **job)))  # type: ignore[arg-type]
    auto = read_story(make_run(tmp_path / "auto", "auto", **job))  # type: ignore[arg-type]
    assert found is not None and len(set(found.own.values())) == 1 and found.score.estimate > 0
    assert not found.pays and auto.explanations[0].startswith("There was no second run: all sub-datasets are best at")


def test_a_single_sub_dataset_has_no_headroom(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "sft", names=("arc",), items=200, horizon=6.0)
    story = read_story(run)
    assert gains_of(story) is None and summarise(run)["headroom"] is None and "Headroom" not in page(story, {})
    runs = {"sft_average": {20: story}}
    said = find(Evidence(Config.model_construct(), runs, lambda *_: None)).said  # type: ignore[arg-type]
    assert said == ["A single sub-dataset has no headroom: its own best epoch is the common one."]


def gains(score: float, width: float, *, pays: bool = False, unreached: tuple[str, ...] = ()) -> Gains:
    of = Gain(score, score - width, score + width, score)
    return Gains(score=of, metric=of, own={"a": 1.0}, common=2.0, unreached=unreached, pays=pays)


@pytest.mark.parametrize(
    ("found", "worth"),
    [
        (gains(0.02, 0.01, pays=True), True),
        (gains(0.02, 0.01), None),  # auto would not try it: the metric speaks against it
        (gains(0.0, 0.004), False),
        (gains(0.0, 0.004, unreached=("a",)), None),  # a peak may still come
        (gains(0.0, 0.02), None),
    ],
)
def test_the_verdict_is_that_of_auto_or_needs_every_peak(found: Gains, worth: bool | None) -> None:
    assert found.worth is worth
    said = " ".join(sentences(found))
    assert ("not worth its cost" in said) == (worth is False)
    assert ("worth a try" in said) == (worth is True)
    assert ("may still come: a." in said) == bool(found.unreached)


def test_over_seeds_the_moments_are_those_of_the_others(tmp_path: Path) -> None:
    """By hand, for three runs whose curves peak at different places."""
    stories = [
        read_story(make_run(tmp_path / str(i), "sft", items=50, horizon=4.0, eval_every=0.5, seed=i, peaks=peaks))
        for i, peaks in enumerate([(1.0, 2.0, 3.0, 3.5), (1.5, 2.0, 3.0, 3.5), (1.0, 2.5, 3.0, 3.5)])
    ]
    expected = []
    for held, story in enumerate(stories):
        curves = {}
        for task in story.tasks:
            others = [[p.scores[task] for p in s.trunk] for i, s in enumerate(stories) if i != held]
            curves[task] = [sum(values) / 2 for values in zip(*others, strict=True)]

        def best(curve: list[float]) -> int:
            means = [round(sum(c := curve[max(0, i - 1) : i + 2]) / len(c), 12) for i in range(len(curve))]
            return means.index(max(means))

        macro = [sum(values) / 4 for values in zip(*curves.values(), strict=True)]
        path = story.trunk
        change = [path[best(c)].scores[t] - path[best(macro)].scores[t] for t, c in curves.items()]
        expected.append(sum(change) / 4)
    score, metric = gains_over_seeds(stories)
    assert score.mean == pytest.approx(sum(expected) / 3) and metric == score
    assert score.low is not None and score.low < score.mean


def test_two_seeds_say_how_many_are_needed_for_the_gain(tmp_path: Path) -> None:
    stories = {
        seed: read_story(make_run(tmp_path / str(seed), "sft", items=50, horizon=4.0, seed=seed)) for seed in range(3)
    }
    said = {}
    for seeds in (1, 2, 3):
        runs = {"sft_average": {seed: stories[seed] for seed in range(seeds)}}
        said[seeds] = " ".join(find(Evidence(Config.model_construct(), runs, lambda *_: None)).said)  # type: ignore[arg-type, return-value]
    assert said[2].startswith("3 seeds or more are needed for the gain; with 2, only best epochs are shown.")
    assert "are needed" not in said[1] + said[3] and "With moments read from the other seeds, 3 seeds: " in said[3]


def test_the_interval_narrows_with_the_items() -> None:
    from core.test_headroom import curves_with_items

    wide, narrow = (measure(curves_with_items(3, items)).score for items in (40, 640))
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)


def test_a_metric_of_its_own_is_valued_at_the_moments_of_the_score() -> None:
    from core.test_headroom import curves_with_items

    found = curves_with_items(3, 200)
    flat = {task: Measured([(0.5,) * 200] * 8, logs=False) for task in found.scores}
    assert measure(replace(found, metrics=flat)).metric == Gain(0.0, 0.0, 0.0, 0.0)
