"""`msft status`: the state of a run or a study, read from its folder only; it may be in progress."""

from __future__ import annotations

import math
import time
from pathlib import Path

from rich.text import Text

from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import compare
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story
from msft.report.table import headline, render_cautions
from msft.report.verdict_views import render_verdict
from msft.report.words import answer, duration
from msft.screen.console import new_console
from msft.screen.view import View
from msft.study.grid import StudyFolder


def run(path: Path) -> None:
    """Prints the state of a run. Raises RunError if the folder holds no readable run."""
    folder, out = RunFolder(path), new_console()
    if StudyFolder(path).holds_study:
        from msft.cli.study_folder import status

        status(StudyFolder(path), out)
        return

    def line(text: str) -> None:
        out.print(Text(text), soft_wrap=True)

    owner = folder.owner()
    if owner is not None and not folder.exists:
        line(f"{owner} is running; the journal is empty so far, because the base model is scored first")
        return
    story = read_story(folder)
    line(headline(story))
    view = _view(story)
    out.print(view)
    if view.decided:
        line(f"Last decision: {view.decided}")
    render_verdict(story, out)
    if story.answer is not None:
        line(answer(story))
    render_cautions(story, compare(story), out)
    if story.timings:
        line(f"Time so far: {seconds_of(story).in_words}")
    ago = duration(max(0.0, time.time() - folder.journal.stat().st_mtime))
    if owner is not None:
        line(f"Running: {owner}; last journal entry {ago} ago.")
    elif story.answer is None:
        line(f"No process is running; last journal entry {ago} ago. Continue with --resume.")


def _view(story: Story) -> View:
    """The run so far, as the live display showed it at the last evaluation."""
    view = View(story.brief, str(story.header.get("method", "")), time.monotonic)
    for number, (segment, outcome) in enumerate(story.segments, start=1):
        view.begins(segment)
        view.ends(number, segment, outcome)
        if segment.trains:
            view.pace.step = segment.stop
    if story.answer is None:
        view.seconds_per_step = _seconds_per_step(story)
    else:
        view.over()
    return view


def _seconds_per_step(story: Story) -> float | None:
    """The mean over the last segments, including scoring; None if no times were recorded."""
    steps = {n: s.stop - s.start for n, (s, _) in enumerate(story.segments, start=1) if s.trains}
    recent = [entry for entry in story.timings if entry.get("number") in steps and entry.get("kind") == "segment"][-8:]
    taken = sum(steps[entry["number"]] for entry in recent)
    return math.fsum(sum(entry.get("seconds", {}).values()) for entry in recent) / taken if taken else None
