"""Reads and checks sub-datasets, and removes leaks from their training examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from msft.config.aggregate import AggregateConfig
from msft.config.dataset_section import DatasetConfig
from msft.config.schema import DataConfig
from msft.core.errors import DataError, complaint
from msft.core.plain_words import many
from msft.core.vocabulary import Task
from msft.data.bad_rows import leave_out_bad_rows
from msft.data.complaints import MOST, Complaints
from msft.data.detect import detect
from msft.data.encode import Encoder
from msft.data.extract import check_installed
from msft.data.formats import TEXT, Format
from msft.data.leaks import Leak, Part, find_leaks, find_repeated_tests
from msft.data.own_scorer import resolve
from msft.data.preference import check_labels
from msft.data.remarks import Remarks
from msft.data.samples import Samples, checked
from msft.data.sources import Source
from msft.data.splits import mixed_splits, split

MOST_LEAKED = 0.5
"""Maximum share of training examples that may be left out as leaks; more means that the splits are the same data."""
SHOWN_LEAKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A sub-dataset that was read and checked, but not yet tokenised."""

    dataset: DatasetConfig
    entry: str
    """The id of the entry of `datasets`; with `split_by`, that of several sub-datasets."""
    form: Format
    part: Part
    notes: list[str]
    without_chat_template: bool
    """Whether its prompts and completions are learned as they stand, though the tokenizer has a chat template."""

    @property
    def is_aggregate(self) -> bool:
        """Whether its rows are only scored."""
        return isinstance(self.dataset, AggregateConfig)


def check(dataset: DatasetConfig, data: DataConfig, source: Source, encoder: Encoder) -> Checked:
    """Reads one sub-dataset and converts every row of its splits to text. Raises DataError."""
    field = dataset.field
    known, notes = leave_out_bad_rows(dataset, source, encoder) if data.bad_rows == "drop" else (None, [])
    splits = split(dataset, source, data.seed)
    if not splits.validation and dataset.group is None:
        raise DataError(
            complaint("there is no validation example", "give more rows, or a validation split", field=field)
        )
    form = known or detect(dataset, splits.train if len(splits.train) else splits.validation)
    check_labels(dataset, splits, form)
    check_installed(form.measure, f"{field}.scorer.extract")
    if form.measure.own:
        resolve(form.measure.name)
    if form.measure.generates and form.kind is TEXT:
        found = "plain text has no prompt to generate from"
        raise DataError(complaint(found, "use scorer: {name: loss}, or give prompts", field=f"{field}.scorer.name"))
    if form.conversation and encoder.chat_template is None:
        found = f"the rows hold messages, but the tokenizer of {encoder.name} has no chat template"
        fix = "give model.chat_template, or columns or a template for prompt and completion"
        raise DataError(complaint(found, fix, field=field))
    complaints = Complaints(field)
    remarks = Remarks(encoder.chats)
    train, validation, test = (
        checked(rows, form, encoder, complaints, remarks) for rows in (splits.train, splits.validation, splits.test)
    )
    complaints.check()
    notes += mixed_splits(dataset, source.rows(where=dataset.where))
    notes += remarks.notes()
    part = Part(train=train, held={"validation": validation, "test": test})
    return Checked(
        dataset=dataset,
        entry=source.dataset.id,
        form=form,
        part=part,
        notes=notes,
        without_chat_template=_as_they_stand(form, train, encoder),
    )


def _as_they_stand(form: Format, train: Samples, encoder: Encoder) -> bool:
    """Whether rows that a chat could have, of a known format, are written without the chat template and its marks."""
    if encoder.chat_template is None or form.conversation or form.kind is None or not train:
        return False
    first = train[0]
    is_marked = any(mark in first.prompt + first.completion for mark in encoder.chat_marks.values())
    return form.kind.name in ("prompt_completion", "alpaca", "question_answer") and not is_marked


def held_out(tasks: Mapping[Task, Checked], data: DataConfig) -> dict[Task, Samples]:
    """The validation samples that were carved from the training rows, for a run on all rows: without those that are in
    a test split or in the aggregate, by `data.leaks`. Raises DataError."""
    rows: dict[Task, Checked] = {}
    for task, made in tasks.items():
        validation, split = made.part.held["validation"], made.dataset.validation
        is_carved = not made.is_aggregate and (split is None or not split.given)
        carved = validation if is_carved else validation.subset(np.empty(0, np.int64))
        # Validation items that stay held out: those of an aggregate.
        kinds = ("validation", "test") if made.is_aggregate else ("test",)
        rows[task] = replace(made, part=Part(train=carved, held={kind: made.part.held[kind] for kind in kinds}))
    return {task: samples for task, samples in without_leaks(rows, data, "held-out").items() if samples}


def without_leaks(tasks: Mapping[Task, Checked], data: DataConfig, kind: str = "training") -> Mapping[Task, Samples]:
    """The training samples of each sub-dataset, after applying `data.leaks`. Raises DataError, naming both places.

    `kind`: what the samples are, in words.
    """
    train: dict[Task, Samples] = {}
    errors: list[str] = []
    for task, leaks in find_leaks({task: made.part for task, made in tasks.items()}).items():
        field, samples = tasks[task].dataset.field, tasks[task].part.train
        train[task] = samples
        if not leaks:
            continue
        if data.leaks == "error":
            fix = "remove one of the two, or set data.leaks: drop"
            errors += [complaint(str(leak), fix, field=field) for leak in leaks[:MOST]]
            errors += [f"... and {len(leaks) - MOST} more"] if len(leaks) > MOST else []
        elif data.leaks == "drop":
            if len(leaks) > MOST_LEAKED * len(samples):
                found = f"{len(leaks)} of {len(samples)} {kind} examples are also in a validation or test split: "
                fix = "remove repeated rows, or give other held-out splits (data.leaks: warn trains on these)"
                errors.append(complaint(found + _told(leaks), fix, field=field))
            left = np.setdiff1d(np.arange(len(samples)), [leak.index for leak in leaks])
            train[task] = samples.subset(left)
        end = "left out of training" if data.leaks == "drop" else "kept (data.leaks: warn)"
        tasks[task].notes.append(
            f"{len(leaks)} of {len(samples)} {kind} examples are also in a validation or test split, {end}: "
            + _told(leaks)
        )
    if errors:
        raise DataError("\n".join(errors))
    return train


def note_repeated_tests(tasks: Mapping[Task, Checked]) -> None:
    """Adds a note to each sub-dataset of which test items are also validation items of any."""
    for task, repeats in find_repeated_tests({task: made.part for task, made in tasks.items()}).items():
        made = tasks[task]
        made.notes.append(
            f"{len(repeats)} of {many(len(made.part.held['test']), 'test item')} are also validation items, by which "
            f"the final model is chosen, so its test score is optimistic: {_told(repeats)}. Fix: remove repeated rows, "
            "or give other splits"
        )


def _told(leaks: list[Leak]) -> str:
    more = [f"and {len(leaks) - SHOWN_LEAKS} more"] if len(leaks) > SHOWN_LEAKS else []
    return "; ".join([*map(str, leaks[:SHOWN_LEAKS]), *more])
