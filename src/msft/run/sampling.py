"""Sample outputs of the base model and the final model, for people: what each says to the same few prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msft.core.errors import UserError
from msft.core.vocabulary import ROOT, Snapshot, Task
from msft.data.examples import Item, Measure, TaskData
from msft.scoring.sample_outputs import MOST_TOKENS, Sample

PER_TASK = 3
"""Prompts of each sub-dataset."""
HEAD, TAIL = 300, 1500
"""Characters of a text that are kept from its beginning and its end."""

Asked: TypeAlias = Mapping[Task, tuple[Sequence[Item], Measure]]


def sampled_outputs(
    sample: Callable[[Snapshot, Asked], Mapping[Task, Sequence[Sample]]],
    data: Mapping[Task, TaskData],
    answer: Snapshot,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """The content of `samples.json`; empty, with a note, where there can be none: the final model is worth more.

    The items are spread over the test split or, where there is none, the validation split; in a group over the test
    split of each data set. There are none where a run on all rows has trained on the validation rows. `answer` is the
    final model.
    """
    items = {
        name: (part, found)
        for task, part in data.items()
        for name, found in (part.tests or {task: [] if part.held_out else part.validation}).items()
    }
    places = {name: _spread(len(found)) for name, (_, found) in items.items()}
    asked: Asked = {name: ([found[at] for at in places[name]], part.measure) for name, (part, found) in items.items()}
    try:
        # The base model first: the final model is exported next.
        base, final = (sample(snapshot, asked) for snapshot in (ROOT, answer))
    except UserError as error:
        note(f"no sample outputs: {str(error).partition(' Fix: ')[0]}")
        return {}
    entries = [
        {"task": task, "split": "test" if items[task][0].test else "validation", "item": at, **_entry(was, now)}
        for task in base
        for at, was, now in zip(places[task], base[task], final[task], strict=True)
    ]
    return {"most_tokens": MOST_TOKENS, "samples": entries}


def _spread(count: int) -> list[int]:
    """Places of the items: the first, and others at equal distances."""
    return sorted({count * k // PER_TASK for k in range(min(PER_TASK, count))})


def _entry(base: Sample, final: Sample) -> dict[str, Any]:
    return {
        "prompt": _short(base.prompt),
        "reference": _short(base.reference),
        "base": {"output": _short(base.output), "probability": base.probability},
        "final": {"output": _short(final.output), "probability": final.probability},
    }


def _short(text: str) -> str:
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} [...] {text[-TAIL:]}"
