"""The verdict as HTML, and as lines of a terminal and of a model card."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from msft.report.final_path import outcome
from msft.report.html import soft, text
from msft.report.story import Story
from msft.report.verdict import Verdict, verdict


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
    found = verdict(story)
    if found is None:
        return
    console.print(Text("What now", style="bold"))
    for step in found.steps:
        console.print(Text(f"- {step.name}:"))
        for line in step.lines:
            console.print(Text(f"    {line}"), soft_wrap=True)


def verdict_html(story: Story) -> str:
    """The beginning of a page: the sentences, and what to do now."""
    found, path = verdict(story), outcome(story)
    if found is None:
        return f'<p class="lead">{text(path)}</p>' if path else ""
    lead = f'<p class="lead verdict">{text(found.gain)}</p>' + "".join(map(_line, found.more))
    return lead + (f'<p class="lead">{text(path)}</p>' if path else "") + _steps(found)


def _line(sentence: str) -> str:
    return f"<p>{text(sentence)}</p>"


def _steps(found: Verdict) -> str:
    """A click selects a command whole."""
    code = '<pre style="margin:.1rem 0 .6rem;overflow-x:auto;user-select:all"><code>{}</code></pre>'
    parts = [soft(f"{step.name}:") + code.format("\n".join(map(text, step.lines))) for step in found.steps]
    return f'<details open class="steps"><summary>What now</summary>{"".join(parts)}</details>'
