"""Sample outputs on the page: what the base model and the final model say to a few prompts of each sub-dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from typing import Any

from msft.core.plain_words import harmless, many
from msft.report.html import Section, text
from msft.report.story import Story
from msft.report.words import percent

KEY = (
    "Texts are decoded greedily, with at most {most} tokens. They were made after the test, are no part of any score, "
    "and are not counted in the cost. Of a choice, the output is the most likely option. Of a conversation, the first "
    "answer is shown; whether it is right, or its probability, is said of all its answers together."
)
WHICH = (("base", "base", "base model"), ("final", "answer", "final model"))
"""The key in the file, in the journal's test, and in words."""


def outputs(story: Story) -> Section:
    """Empty where the run recorded none."""
    found = story.folder.read_samples()
    known = {*story.names, *story.tested}
    samples = [each for each in found.get("samples", []) if isinstance(each, dict) and each.get("task") in known]
    parts = []
    for task, entries in groupby(samples, key=lambda each: str(each["task"])):
        parts.append(f"<h3>{text(task)}</h3>" + "".join(_entry(story, entry) for entry in entries))
    content = ""
    if parts and story.answer is not None:
        key = f'<p class="soft">{text(KEY.format(most=found.get("most_tokens", "?")))}</p>'
        head = f"{many(len(samples), 'prompt')}, and what both models say"
        content = f'<details id="samples"><summary>{head}</summary>{key}{"".join(parts)}</details>'
    return Section(name="outputs", title="Sample outputs", content=content)


def _entry(story: Story, entry: Mapping[str, Any]) -> str:
    lines = [("prompt", entry.get("prompt", "")), ("reference", entry.get("reference", ""))]
    lines += [(f"{words}{_remarks(story, entry, key, which)}", _output(entry, key)) for key, which, words in WHICH]
    rows = "".join(f'<tr><th scope="row">{text(name)}</th><td>{_shown(said)}</td></tr>' for name, said in lines)
    return f'<div class="card wide"><table class="pairs"><tbody>{rows}</tbody></table></div>'


def _shown(said: object) -> str:
    """The text with its line breaks; nothing else in it has an effect."""
    lines = ("".join(c for c in line if c == "\t" or harmless(c)) for line in str(said).splitlines())
    return f'<span class="said">{"<br>".join(map(escape, lines))}</span>'


def _output(entry: Mapping[str, Any], key: str) -> object:
    model = entry.get(key)
    return model.get("output", "") if isinstance(model, dict) else ""


def _remarks(story: Story, entry: Mapping[str, Any], key: str, which: str) -> str:
    said = ", ".join([*_score(story, entry, which), *_probability(entry, key)])
    return f" ({said})" if said else ""


def _score(story: Story, entry: Mapping[str, Any], which: str) -> Iterator[str]:
    """The test metric of this item, which the journal has."""
    outcome, at, task = story.test.get(which), entry.get("item"), str(entry.get("task"))
    if entry.get("split") != "test" or outcome is None or outcome.items is None or not isinstance(at, int):
        return
    values = outcome.items.get(task, ())
    if not 0 <= at < len(values):
        return
    if story.header.get("measures", {}).get(task, {}).get("name") == "loss":
        yield f"probability per token of the reference {percent(math.exp(values[at]))} %"
    else:
        yield {0.0: "wrong", 1.0: "right"}.get(values[at], f"score {percent(values[at])} %")


def _probability(entry: Mapping[str, Any], key: str) -> Iterator[str]:
    model = entry.get(key)
    probability = model.get("probability") if isinstance(model, dict) else None
    if isinstance(probability, float):
        yield f"probability among the options {percent(probability)} %"
