"""Warnings of a report that name the setting to change: a run that diverged, and one that was too short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import make_run

from msft.core.vocabulary import Mixture
from msft.report.base_and_answer import compare
from msft.report.cautions import cautions
from msft.report.page import write_page
from msft.report.rollouts import find_rollouts
from msft.report.story import Story, read_story
from msft.report.trail import Trail

NAMES = ("a", "b")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = make_run(tmp_path_factory.mktemp("runs") / "sft", "sft", names=NAMES, horizon=2.0)
    return read_story(folder)


def with_curves(
    story: Story, losses: tuple[float, ...], scores: tuple[float, ...], mixtures: tuple[Mixture, ...] = ()
) -> Story:
    """The run with these training losses, search scores and mixtures, each in an equal part of it, from 0.3."""
    base = replace(story.brief.base, scores=dict.fromkeys(NAMES, 0.3))
    brief = replace(story.brief, base=base)
    segments, trail = [], Trail(brief)
    for number, (segment, outcome) in enumerate(story.segments, 1):
        now = (number - 1) * len(losses) // len(story.segments)
        segment = replace(segment, mixture=mixtures[now]) if mixtures else segment
        segments.append((segment, replace(outcome, train_loss=losses[now], scores=dict.fromkeys(NAMES, scores[now]))))
        trail.add(number, *segments[-1])
    rollouts = tuple(find_rollouts(trail, segments, story.outlook))
    header = {**story.header, "config": {**story.header["config"], "training.learning_rate": 3.0}}
    return replace(story, brief=brief, segments=segments, trail=trail, rollouts=rollouts, header=header)


def said(story: Story) -> list[str]:
    return [line for line in cautions(story, compare(story)) if "diverged" in line]


@pytest.mark.parametrize(
    ("losses", "scores", "shown"),
    [
        ((2.0, 8.0), (0.9, -1.0), "rose from 2 to 8 in the last roll-out"),
        ((1.0, 1.0, 8.0), (0.6, 0.65, 0.31), "rose from 1 to 8 in the last roll-out"),  # not below the base model
        ((423.0, 378.0), (-1.0, -1.0), "is 378 at the end, above that of a guess"),
        ((2.0, 3.9), (0.9, -1.0), None),
        ((0.01, 0.005, 0.021), (0.35, 0.5, 0.299), None),  # it has learned by heart
        ((1.0, 1.0, 8.0), (0.6, 0.65, 0.62), None),  # most of what was gained is kept
        ((2.0, 0.1), (0.9, -1.0), None),  # it overfits
        ((2.0, 8.0), (-1.0, 0.9), None),  # what is drawn became harder
        ((20.0, 15.0), (0.9, 0.95), None),  # a model that begins with no knowledge learns
    ],
)
def test_a_run_that_diverged_is_told(
    story: Story, losses: tuple[float, ...], scores: tuple[float, ...], shown: str | None
) -> None:
    expected = f"Training diverged: its loss {shown}. Lower training.learning_rate, which is 3."
    found = with_curves(story, losses, scores)
    assert said(found) == ([] if shown is None else [expected])
    lowered = {"since": 2, "path": ["config", "training.learning_rate"], "was": 3, "now": 0.1}
    resumed = expected.replace("which is 3", "which is 3, from segment 2 on 0.1")
    assert said(replace(found, changes=[lowered])) == ([] if shown is None else [resumed])


def test_the_loss_of_another_mixture_is_another_one(story: Story) -> None:
    """Where the examples that are mastered are left out, the loss of the others is higher."""
    whole = Mixture(tasks=NAMES)
    hard = replace(whole, without=frozenset((NAMES[0], number) for number in range(9)))
    curves = (0.4, 0.4, 0.95), (0.5, 0.6, 0.28)
    assert not said(with_curves(story, *curves, (whole, whole, hard)))
    assert said(with_curves(story, *curves, (whole, whole, whole)))


def test_runs_that_learn_have_no_such_warning(story: Story, tmp_path: Path) -> None:
    assert not said(story)
    for method in ("msft", "continual", "dynamix", "self_distil"):
        folder = make_run(tmp_path / method, method)
        assert not said(read_story(folder)), method
        write_page(folder, tmp_path / "page.html")
        assert "diverged" not in (tmp_path / "page.html").read_text()


def test_a_run_that_was_too_short_asks_for_a_new_one(tmp_path: Path) -> None:
    """A finished run has been tested once: it is not trained on."""
    short = read_story(make_run(tmp_path / "sft", "sft", names=NAMES, peaks=(30.0, 30.0), horizon=2.0))
    (line,) = [line for line in cautions(short, compare(short)) if "Best score at the end" in line]
    assert line.startswith("Best score at the end of training, so a new run with a higher method.max_epochs may help: ")
