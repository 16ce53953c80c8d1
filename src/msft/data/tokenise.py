"""From checked samples to tokens: training examples and items of every sub-dataset."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from msft.config.schema import DataConfig
from msft.core.errors import DataError, complaint
from msft.core.vocabulary import Task
from msft.data.cache import Cache
from msft.data.chat_template import ChatTemplateError
from msft.data.checks import Checked
from msft.data.complaints import Complaints, note_of_dropped
from msft.data.cuts import Cuts
from msft.data.encode import Encoder, cut
from msft.data.ends import TaskEnds
from msft.data.examples import Example, Item, Measure, Member, TaskData
from msft.data.formats import TEXT, Sample
from msft.data.grouping import grouped
from msft.data.items import build, notes_of_choices, notes_of_lengths
from msft.data.own_scorer import fingerprint
from msft.data.samples import Samples, batches
from msft.data.shots import after, draw

BATCH = 2000
"""Number of samples tokenised at once."""
MOST_LEFT_OUT = 0.1
"""Maximum share of a split that may be left out because of `max_length`, unless `data.bad_rows: drop` says that more
may: it can be a mistake in the configuration."""


def tokenised(
    tasks: Mapping[Task, Checked],
    train: Mapping[Task, Samples],
    data: DataConfig,
    encoder: Encoder,
    cache: Cache | None,
    held: Mapping[Task, Samples] | None = None,
) -> dict[Task, TaskData]:
    """The sub-datasets as tokens, groups as one each. `held`: the rows that are held out, if a run on all rows follows.

    Raises DataError if too many examples do not fit.
    """
    made: dict[Task, TaskData] = {}
    inside: dict[Task, frozenset[int]] = {}
    errors: list[str] = []
    for task, names in grouped(tasks).items():
        builders = {name: _Builder(tasks[name], data, encoder) for name in names}
        try:
            stream = chain.from_iterable(builder.examples(train[name]) for name, builder in builders.items())
            examples = list(stream) if cache is None else cache.pack(f"{len(made)}.train", stream)
            items = [_items(tasks[name], train[name], builder) for name, builder in builders.items()]
            counts = [builder.kept for builder in builders.values()]
            stream = chain.from_iterable(b.held_out(held[n]) for n, b in builders.items() if held and n in held)
            rest = [] if held is None else list(stream) if cache is None else cache.pack(f"{len(made)}.held", stream)
        except DataError as error:
            errors.append(str(error))
            continue
        chats = [name for name in names if tasks[name].form.kind is TEXT and builders[name].has_chats()]
        members = [
            _member(tasks[name], builder, own, count)
            for (name, builder), own, count in zip(builders.items(), items, counts, strict=True)
        ]
        validation, test = ([item for own in items for item in own[kind]] for kind in ("validation", "test"))
        measure = next(tasks[member.task].form.measure for member in members if member.validation or member.test)
        is_group = tasks[names[0]].dataset.group is not None
        made[task] = TaskData(
            task=task,
            train=examples,
            validation=validation,
            test=test,
            measure=measure,
            fingerprint=_fingerprint(examples, validation, test, measure, rest),
            ends=_all_ends(members),
            dataset=members[0].dataset,
            notes=tuple(f"{member.task}: {note}" if is_group else note for member in members for note in member.notes),
            members=tuple(members) if is_group else (),
            held_out=rest,
            left_out=sum(member.left_out for member in members),
            without_chat_template=members[0].without_chat_template,
            aggregate=tasks[names[0]].is_aggregate,
        )
        inside[task] = frozenset().union(*(builders[name].ends.inside for name in names if name not in chats))
    if errors:
        raise DataError("\n".join(errors))
    ends = {end for part in made.values() for end in part.ends}
    for task, part in made.items():
        if part.aggregate:  # whose texts end as any sub-dataset teaches
            made[task] = replace(part, ends=(part.ends[0], *sorted(ends - {part.ends[0]})))
    return {task: _told(part, sorted(inside[task] & ends), encoder) for task, part in made.items()}


def _member(checked: Checked, builder: _Builder, items: Mapping[str, Sequence[Item]], train: int) -> Member:
    """One data set; all of its rows have been made, `train` of them as training examples."""
    return Member(
        task=checked.dataset.id,
        dataset=checked.entry,
        train=train,
        validation=len(items["validation"]),
        test=len(items["test"]),
        held=builder.kept - train,
        taken=train,
        left_out=builder.left_out,
        without_chat_template=checked.without_chat_template,
        ends=builder.ends.found,
        notes=tuple(checked.notes),
    )


def _items(checked: Checked, train: Samples, builder: _Builder) -> dict[str, list[Item]]:
    """The validation and test items of one data set; its training examples have been made. Raises DataError."""
    task, asked = checked.dataset.id, checked.dataset.scorer.shots if checked.dataset.scorer else None
    try:
        shots = draw(train, asked, task) if asked else []
        items = {
            kind: builder.items([after(shots, sample) for sample in samples], checked.form.measure, kind)
            for kind, samples in checked.part.held.items()
        }
    except ChatTemplateError as error:  # every row was rendered before, but not with shots or in part
        raise DataError(complaint(str(error), error.fix, field=f"{checked.dataset.field}.scorer")) from None
    builder.notes += notes_of_choices(items, checked.form.measure)
    builder.notes += notes_of_lengths(items, checked.form.measure, builder.ends.found)
    return items


def _all_ends(members: Sequence[Member]) -> tuple[int, ...]:
    """The end-of-sequence token, then the others in ascending order."""
    first = members[0].ends[0]
    return (first, *sorted({end for member in members for end in member.ends} - {first}))


def _told(part: TaskData, cut: Sequence[int], encoder: Encoder) -> TaskData:
    """The sub-dataset with a note on the end tokens, `cut`, after which its answers go on."""
    if not cut:
        return part
    texts = " and ".join(map(encoder.end_rule.text, cut))
    note = f"some answers go on after {texts}, where the final model stops. Fix: write something else there"
    return replace(part, notes=(*part.notes, note))


class _Builder:
    """Tokenises the splits of one sub-dataset and notes what does not fit."""

    def __init__(self, checked: Checked, data: DataConfig, encoder: Encoder) -> None:
        self.field, self.notes = checked.dataset.field, checked.notes
        self.max_length, self.encoder = data.max_length, encoder
        self.drop = data.bad_rows == "drop"
        self.ends = TaskEnds(encoder.end_rule)
        self.kept = self.left_out = 0
        """Number of training examples that were made so far, and of their tokens that truncation left out."""

    def examples(self, samples: Sequence[Sample]) -> Iterator[Example]:
        """The examples truncated to `max_length`, without those that keep no learned token.

        Raises DataError at the end if these are too many.
        """
        made, cuts = 0, Cuts(self.max_length)
        said: Counter[str] = Counter()
        for batch in batches(samples, BATCH):
            for whole in self.encoder.whole(batch, said):
                made += 1
                self.ends.add(whole)
                if (example := cuts.cut(whole)) is not None:
                    yield example
        self.kept, self.left_out = cuts.examples, cuts.left_out
        self._check(made - cuts.examples, made, "training", "no learned token of them is left")
        if made > len(samples):
            self.notes.append(
                f"{len(samples)} conversations became {made} training examples: the chat template writes earlier turns "
                "differently when others follow, or ends them with no special token, so a turn is learned as it is "
                "written when it is the last; of a validation or test conversation, the last assistant turn is scored"
            )
        self.notes += cuts.notes("training")
        self.notes += [f"{count} of {made} training examples: {what}" for what, count in said.items() if count]

    def held_out(self, samples: Sequence[Sample]) -> Iterator[Example]:
        """The same of rows that are held out: what is said of a data set is said of its training examples."""
        made = kept = 0
        for batch in batches(samples, BATCH):
            for whole in self.encoder.whole(batch):
                made += 1
                if (example := cut(whole, self.max_length)) is not None:
                    kept += 1
                    yield example
        self.kept += kept
        self._check(made - kept, made, "held-out", "no learned token of them is left")

    def items(self, samples: Sequence[Sample], measure: Measure, kind: str) -> list[Item]:
        """The items of a split, truncated for `loss`, else without those that truncation would make easier or
        unanswerable."""
        complaints = Complaints(self.field, drop=self.drop)
        items = build(samples, measure, self.encoder, complaints, self.ends.found)
        self.notes.extend(note_of_dropped(complaints.dropped, len(samples), self.field, f"{kind} rows"))
        if measure.name == "loss":
            cuts = Cuts(self.max_length)
            items = [replace(item, options=(cuts.cut(item.options[0]) or item.options[0],)) for item in items]
            self.notes += cuts.notes(kind)
        kept = [item for item in items if all(0 < len(o) <= self.max_length and o.targets for o in item.options)]
        self._check(len(items) - len(kept), len(items), kind, "they do not fit")
        return kept

    def has_chats(self) -> bool:
        """Whether plain texts hold the marks of the chat template, which is noted."""
        marks = [text for token, text in self.encoder.chat_marks.items() if token in self.ends.inside]
        if marks:
            self.notes.append(
                f"the texts hold chats ({', '.join(marks)}), in which all turns are learned, the user's too. Fix: give "
                "the turns as `messages`"
            )
        return bool(marks)

    def _check(self, out: int, of: int, kind: str, why: str) -> None:
        if not out:
            return
        found = f"{out} of {of} {kind} examples are left out: {why} within {self.max_length} tokens"
        if out == of or (out > MOST_LEFT_OUT * of and not self.drop):
            fix = "raise data.max_length, if the model takes longer ones, or give shorter rows"
            if out < of:
                fix += f"; data.bad_rows: drop leaves out more than {MOST_LEFT_OUT:.0%}"
            raise DataError(complaint(found, fix, field=self.field))
        self.notes.append(found)


def _fingerprint(
    train: Sequence[Example],
    validation: Sequence[Item],
    test: Sequence[Item],
    measure: Measure,
    held: Sequence[Example] = (),
) -> str:
    digest = hashlib.sha256(repr(measure).encode())
    if measure.own:
        digest.update(fingerprint(measure.name).encode())

    def add(*numbers: int) -> None:
        digest.update(np.asarray(numbers, "<i8").tobytes())

    def add_examples(examples: Sequence[Example]) -> None:
        add(len(examples))
        for example in examples:
            add(len(example))
            digest.update(example.ids.astype("<i4").tobytes() + example.trained.tobytes())

    add_examples(train)
    for items in (validation, test):
        add(len(items))
        for item in items:
            add(item.answer, len(item.option_bytes), *item.option_bytes)
            digest.update(json.dumps([item.reference, item.fields], default=str).encode())
            add_examples(item.options)
    if held:
        add_examples(held)
    return digest.hexdigest()
