"""Converts samples to the items on which a sub-dataset is scored, for every measure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from msft.core.vocabulary import Task
from msft.data.chats import as_item, renderings, up_to_last_turn
from msft.data.complaints import Complaints
from msft.data.encode import Encoder, cut
from msft.data.examples import Item, Measure
from msft.data.extract import reference_of
from msft.data.formats import Sample


def build(samples: Sequence[Sample], measure: Measure, encoder: Encoder, max_length: int, task: Task) -> list[Item]:
    """One item per sample, truncated only for `loss`. Raises DataError if no answer can be extracted from a row.

    Of a conversation, all assistant turns are scored together; only the last one where it has to be generated, or where
    the turns cannot be rendered in one text.
    """
    if measure.name == "choice":
        sizes = [tuple(len(option.strip().encode()) for option in sample.options) for sample in samples]
        return [
            Item(options=options, answer=sample.answer, option_bytes=size)
            for sample, options, size in zip(samples, encoder.options(samples), sizes, strict=True)
        ]
    if measure.generates:
        samples = [up_to_last_turn(sample) if sample.messages else sample for sample in samples]
        return _generating(samples, measure, encoder, task)
    samples = [as_item(encoder.chats, sample) if sample.messages else sample for sample in samples]
    examples = encoder.whole(samples)
    if measure.name == "loss":
        examples = [cut(example, max_length) or example for example in examples]
    return [Item(options=(example,)) for example in examples]


def _generating(samples: Sequence[Sample], measure: Measure, encoder: Encoder, task: Task) -> list[Item]:
    complaints = Complaints(f"datasets.{task}")
    items = []
    for sample, example in zip(samples, encoder.whole(samples), strict=True):
        row = sample.row
        place = f"{row.file}:{row.line}" if row.line is not None else f"{row.file} row {row.number}"
        prompt, completion = _texts(sample, encoder)
        if measure.own:
            fields = {"prompt": prompt, "completion": completion, "row": dict(row.values)}
            items.append(Item(options=(example,), place=place, fields=fields))
            continue
        try:
            reference = reference_of(completion, sample.stated, measure)
        except ValueError as error:
            number = f"row {row.number}" if row.line is None else ""
            mend = "fix the row, choose another extract, or name the answer's column in columns.answer"
            complaints.add(str(error), mend, file=row.file, line=row.line, field=number)
        else:
            items.append(Item(options=(example,), place=place, reference=reference))
    complaints.check()
    return items


def _texts(sample: Sample, encoder: Encoder) -> tuple[str, str]:
    """The prompt as the model reads it, and the completion (in a conversation: the content of its last turn)."""
    if not sample.messages:
        return sample.prompt, sample.completion
    (rendering,) = renderings(encoder.chats, sample)
    before = itertools.takewhile(lambda piece: not piece[1], rendering.pieces)
    return "".join(text for text, _ in before), str(sample.messages[-1]["content"])
