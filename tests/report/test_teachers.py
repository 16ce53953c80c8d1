"""A first run that teaches is the plain SFT that a run is compared with, where it is that."""

from __future__ import annotations

import io
import math
from pathlib import Path

from rich.console import Console
from run_folders import make_run

from msft.core.method import Method
from msft.core.rollout import Answer, Track
from msft.core.vocabulary import Brief, Mixture, Plan, Teacher
from msft.report.figures import Curves
from msft.report.lanes import lane_figure
from msft.report.page import page
from msft.report.story import Story, read_story
from msft.report.verdict_views import render_verdict
from msft.report.words import decisions

ITEMS = 100


def render(story: Story) -> str:
    out = io.StringIO()
    render_verdict(story, Console(file=out, width=1000))
    return "\n".join([out.getvalue(), *decisions(story)])


def test_a_teacher_is_the_plain_sft_that_a_run_is_compared_with(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", "self_distil", horizon=4.0, items=ITEMS, chosen=32))
    first, last = story.plain_first, story.answer
    assert first is not None and last is not None and last.rollout == 2
    macro = [sum(story.trail.points[number].scores[t] for t in story.tasks) for number in range(17)]
    assert first.snapshot == macro.index(max(macro)), "what plain fine-tuning hands over"
    was, now = (100 * math.fsum(p.reports[t] for t in story.tasks) / len(story.tasks) for p in (first, last))
    text = render(story)
    assert (
        f"Its first run, the teacher, is plain SFT of the same job: its validation average is {was:.1f}, that of the "
        f"final model {now:.1f} (both chosen by these items)."
    ) in text
    assert "not compared with plain SFT" not in text
    assert "Roll-out 1, epoch 0 to 4: the first run (teacher)." in text
    assert "Roll-out 2, epoch 0 to 4: trained to the end." in text and "excluded" not in text
    shown = page(story, {})
    assert "not part of the final model" not in shown, "no decision is folded"
    assert "Violet: the first run (teacher)." in shown
    drawn = [trace for view in lane_figure(story)["views"][1:] for trace in view]
    assert {trace["name"] for trace in drawn} >= {"trained in full", "first run (teacher)"}
    trained = {name: sum(x for t in drawn if t["name"] == name for x in t["x"]) for name in (t["name"] for t in drawn)}
    assert trained["first run (teacher)"] > trained.get("discarded", 0.0), "the teacher's training is not discarded"
    names = [trace["name"] for trace in Curves(story).average()["data"] if trace]
    assert "average, first run (teacher)" in names
    story = read_story(make_run(tmp_path / "first", "self_distil", horizon=4.0, items=ITEMS, chosen=12))
    assert "Its final model is of its first run, plain SFT of the same job: the second run" in render(story)
    assert page(story, {})


def test_a_first_run_that_turns_out_to_teach_is_called_a_teacher(tmp_path: Path) -> None:
    """`auto` decides at its end whether there is a second run; nothing of it is rolled back or discarded."""
    story = read_story(make_run(tmp_path / "run", "auto", peaks=(0.5, 0.8, 5.0, 6.0), horizon=6.0, items=1000))
    text = render(story)
    assert story.answer is not None and story.answer.rollout == 2 and story.plain_first is not None
    assert story.teachers == {point.snapshot for point in story.trail.points.values() if point.rollout == 1}
    assert "Roll-out 1, epoch 0 to 6: the first run (teacher)." in text
    assert "Its first run, the teacher, is plain SFT of the same job" in text
    assert "discarded" not in text and "continued from" not in text
    cut = read_story(
        make_run(tmp_path / "cut", "auto", peaks=(0.5, 0.8, 5.0, 6.0), horizon=6.0, items=1000, stop_after=9)
    )
    assert not cut.teachers and cut.plain_first is None, "nothing is taught yet"


def test_a_teacher_that_is_not_plain_sft_is_not_called_so(tmp_path: Path) -> None:
    """Nor need it have been scored: a method of one's own decides that."""

    def method(score: bool, tasks: slice) -> Method:
        def plan(brief: Brief) -> Plan:
            track = Track(brief)
            answer, here, mixture = Answer(brief, track.base), track.base, Mixture(tasks=brief.tasks[tasks])
            for stop in track.ticks(here, mixture, 1.0):
                here = yield from track.advance(here, mixture, stop, score=brief.tasks if score else (), why="teacher")
            teacher, mixture, here = Teacher(snapshots=(here.snapshot,)), Mixture(tasks=brief.tasks), track.base
            for stop in track.ticks(here, mixture, 1.0):
                here = yield from track.advance(
                    here, mixture, stop, score=brief.tasks, teacher=teacher, keep=answer.keep
                )
                answer.offer(here)
            return answer.choose(here)

        return Method(plan=plan, Params=type(None))

    for number, (score, tasks) in enumerate(((False, slice(None)), (True, slice(2)), (True, slice(None)))):
        own = method(score, tasks)
        story = read_story(make_run(tmp_path / str(number), "mine", own=own, items=ITEMS, params={}))
        assert ("plain SFT of the same job" in render(story)) is (number == 2) and page(story, {})
