"""The verdict as HTML, and as lines of a terminal and of a model card."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from msft.report.final_path import outcome
from msft.report.html import soft, text
from msft.report.story import Story
from msft.report.verdict import Step, steps, verdict
from msft.report.words import decisions


def sentences(story: Story) -> list[str]:
    """The verdict, then what the exclusions have to do with the final model; only the latter while a run goes on."""
    found, path = verdict(story), outcome(story)
    return [*([] if found is None else [found.gain, *found.more]), *([path] if path else [])]


def render_verdict(story: Story, console: Console) -> None:
    """Write the sentences to a console, the first in bold. In a log file, a sentence is one line."""
    for number, line in enumerate(sentences(story)):
        console.print(Text(line, style="" if number else "bold"), soft_wrap=not console.is_terminal)


def render_steps(story: Story, console: Console) -> None:
    """Write what to do now to a console: lines to copy, which are never wrapped."""
    console.print(Text("What now", style="bold"))
    for step in steps(story):
        console.print(Text(f"- {step.name}:"))
        for line in step.lines:
            console.print(Text(f"    {line}"), soft_wrap=True)


def verdict_html(story: Story) -> str:
    """The beginning of a page: the sentences, which point the final model is, and what to do now."""
    found, path = verdict(story), outcome(story)
    excluded = f'<p class="lead">{text(path)}</p>' if path else ""
    place = "" if story.answer is story.base else soft(decisions(story)[-1])
    if found is None:
        return excluded + place + _steps(steps(story))
    lead = f'<p class="lead">{text(found.gain)}</p><p>{" ".join(map(text, found.more))}</p>'
    return lead + excluded + place + _steps(found.steps)


def _steps(found: Iterable[Step]) -> str:
    """One below the other. A click selects a command whole; a long one scrolls."""
    code = '<pre tabindex="0"><code>{}</code></pre>'
    parts = [f"{soft(f'{step.name}:')}{code.format(chr(10).join(map(text, step.lines)))}" for step in found]
    return f'<div class="steps">{"".join(parts)}</div>'
