"""Converts samples to the items on which a sub-dataset is scored, for every measure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from msft.core.plain_words import many
from msft.data.chats import as_item, renderings, up_to_last_turn
from msft.data.complaints import Complaints
from msft.data.encode import Encoder
from msft.data.examples import Item, Measure
from msft.data.extract import reference_of
from msft.data.formats import Sample


def build(
    samples: Sequence[Sample],
    measure: Measure,
    encoder: Encoder,
    complaints: Complaints,
    ends: Sequence[int] = (),
) -> list[Item]:
    """One item per sample, not truncated. `ends`: the tokens that end a generated text.

    Raises DataError if no answer can be extracted from a row, unless `complaints` drops such rows.

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
        texts = [encoder.end_rule.text(end) for end in ends]
        samples = [up_to_last_turn(sample) if sample.messages else sample for sample in samples]
        return _generating(samples, measure, encoder, complaints, texts)
    samples = [as_item(encoder.chats, sample) if sample.messages else sample for sample in samples]
    return [Item(options=(example,)) for example in encoder.whole(samples)]


def notes_of_choices(items: Mapping[str, Sequence[Item]], measure: Measure) -> list[str]:
    """The note on options that can never win: their tokens begin with those of another option, which is at least as
    likely if likelihoods are not normalised. `items`: those of each split. Empty if there are no such options."""
    if measure.name != "choice" or measure.normalize != "none":
        return []
    counts = {kind: sum(map(_has_hopeless_option, own)) for kind, own in items.items()}
    if not (said := _counted(counts, items)):
        return []
    fix = "Fix: write scorer: {name: choice, normalize: token}, or of: letter"
    found = "one option begins with the tokens of another one, so it can never win (scorer: choice)"
    return [f"in {said} {found}. {fix}"]


def notes_of_lengths(items: Mapping[str, Sequence[Item]], measure: Measure, ends: Sequence[int]) -> list[str]:
    """The note on items whose own completion is longer than what may be generated, so that a model which answers alike
    is cut off. `items`: those of each split; `ends`: as for `build`. Empty if there are none."""
    if not measure.generates:
        return []
    lengths = {kind: [_completion(item, ends) for item in own] for kind, own in items.items()}
    most = measure.max_new_tokens
    counts = {kind: sum(length > most for length in own) for kind, own in lengths.items()}
    if not (said := _counted(counts, items)):
        return []
    longest = max(length for own in lengths.values() for length in own)
    found = f"the completion is longer than max_new_tokens: {most}, so that an answer at its end may not be reached"
    return [f"in {said} {found}. Fix: set scorer.max_new_tokens to {longest}, the longest one's tokens"]


def _counted(counts: Mapping[str, int], items: Mapping[str, Sequence[Item]]) -> str:
    """2 of 60 validation items and 1 of 200 test items; empty if all counts are 0."""
    said = (f"{count:,} of {many(len(items[kind]), f'{kind} item')}" for kind, count in counts.items() if count)
    return " and ".join(said)


def _completion(item: Item, ends: Sequence[int]) -> int:
    """The tokens of an item's own completion, without the one that ends it."""
    (example,) = item.options
    return int(example.trained.sum()) - (int(example.ids[-1]) in ends)


def _has_hopeless_option(item: Item) -> bool:
    # In order, an option that another one begins with is followed by one that begins with it.
    ordered = sorted(option.ids.tobytes() for option in item.options)
    return any(one != other and other.startswith(one) for one, other in itertools.pairwise(ordered))


def _generating(
    samples: Sequence[Sample], measure: Measure, encoder: Encoder, complaints: Complaints, ends: Sequence[str]
) -> list[Item]:
    items = []
    for sample, (example, repeated) in zip(samples, encoder.encoded(samples), strict=True):
        row = sample.row
        place = row.place
        prompt, completion = _texts(sample, encoder)
        if measure.own:
            fields = {"prompt": prompt, "completion": completion, "row": dict(row.values)}
            items.append(Item(options=(example,), place=place, repeated=repeated, fields=fields))
            continue
        try:
            reference = reference_of(_without(ends, completion), sample.stated, measure, sample.choices)
        except ValueError as error:
            fix = "fix the row, choose another extract, or name the answer's column in columns.answer"
            complaints.row(str(error), fix, file=row.file, line=row.line, number=row.number)
        else:
            items.append(
                Item(options=(example,), place=place, repeated=repeated, reference=reference, choices=sample.choices)
            )
    complaints.check()
    return items


def _without(ends: Sequence[str], completion: str) -> str:
    """The completion without the end tokens that are written at its end: a generated text has none."""
    while end := next((end for end in ends if end and completion.rstrip().endswith(end)), None):
        completion = completion.rstrip().removesuffix(end)
    return completion


def _texts(sample: Sample, encoder: Encoder) -> tuple[str, str]:
    """The prompt as the model reads it, and the completion (in a conversation: the content of its last turn)."""
    if not sample.messages:
        return sample.prompt, sample.completion
    (rendering,) = renderings(encoder.chats, sample)
    before = itertools.takewhile(lambda piece: not piece[1], rendering.pieces)
    return "".join(text for text, _ in before), str(sample.messages[-1]["content"])
