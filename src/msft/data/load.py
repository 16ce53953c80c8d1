"""From a configuration to tokenised sub-datasets: the way into this room."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msft.config.schema import Config, DataConfig, DatasetConfig
from msft.core.errors import DataError, complaint
from msft.core.vocabulary import Task
from msft.data.answers import check_installed
from msft.data.complaints import Complaints
from msft.data.encode import Encoder, cut
from msft.data.examples import Example, Item, Measure, TaskData
from msft.data.formats import Format, Sample, detect
from msft.data.items import build
from msft.data.own_scorer import fingerprint, resolve
from msft.data.shots import after, draw
from msft.data.sources import Row, Source
from msft.data.splits import split

MOST_LEFT_OUT = 0.1
"""Share of a split that `max_length` may leave out; more is a mistake in the configuration."""


def load_tasks(config: Config, tokenizer: Any) -> dict[Task, TaskData]:
    """Every sub-dataset, in the order of the configuration.

    `tokenizer`: a transformers tokenizer. Raises DataError, naming what is wrong with each of the data sets, and
    ModelError where the tokenizer cannot be used.
    """
    encoder = Encoder(tokenizer, _chat_template(config.model.chat_template))
    tasks: dict[Task, TaskData] = {}
    errors: list[str] = []
    for dataset in config.datasets:
        try:
            tasks[dataset.id] = load_task(dataset, config.data, encoder)
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    return tasks


def load_task(dataset: DatasetConfig, data: DataConfig, encoder: Encoder) -> TaskData:
    """One sub-dataset. Raises DataError."""
    splits = split(dataset, Source(dataset, data.seed), data.seed)
    if not splits.validation:
        found, mend = "there is no validation example", "give more rows, or a validation split"
        raise DataError(complaint(found, mend, field=f"datasets.{dataset.id}"))
    form = detect(dataset, splits.train)
    check_installed(form.measure, f"datasets.{dataset.id}.scorer.extract")
    if form.measure.own:
        resolve(form.measure.name)
    if form.conversation and encoder.chat_template is None:
        found = f"the rows hold messages, but the tokenizer of {encoder.name} has no chat template"
        mend = "give model.chat_template, or columns or a template for prompt and completion"
        raise DataError(complaint(found, mend, field=f"datasets.{dataset.id}"))
    complaints = Complaints(f"datasets.{dataset.id}")
    train, validation, test = (
        _samples(rows, form, encoder, complaints) for rows in (splits.train, splits.validation, splits.test)
    )
    complaints.check()
    notes: list[str] = []
    builder = _Builder(dataset.id, data.max_length, encoder, notes)
    examples = builder.examples(train)
    asked = dataset.scorer.shots if dataset.scorer else None
    shots = draw(train, asked, dataset.id) if asked else []
    items = {
        kind: builder.items([after(shots, sample) for sample in samples], form.measure, kind)
        for kind, samples in (("validation", validation), ("test", test))
    }
    known = {sample.question for sample in train}
    for kind, samples in (("validation", validation), ("test", test)):
        shared = sum(sample.question in known for sample in samples)
        if shared:
            notes.append(f"{shared} of {len(samples)} {kind} questions are among the training examples too")
    return TaskData(
        task=dataset.id,
        train=examples,
        validation=items["validation"],
        test=items["test"],
        measure=form.measure,
        fingerprint=_fingerprint(examples, items["validation"], items["test"], form.measure),
        notes=tuple(notes),
    )


def _chat_template(given: str | None) -> str | None:
    """The Jinja text: of the file, where a file is named, or as given."""
    if given is None or "{" in given or not Path(given).is_file():
        return given
    return Path(given).read_text(encoding="utf-8")


def _samples(rows: Sequence[Row], form: Format, encoder: Encoder, complaints: Complaints) -> list[Sample]:
    samples = []
    for row in rows:
        try:
            sample = form.sample(row)
            if sample.messages:
                encoder.conversation(sample.messages)
        except ValueError as error:
            place = f"row {row.number}" if row.line is None else ""
            complaints.add(str(error), "mend or remove the row", file=row.file, line=row.line, field=place)
        else:
            samples.append(sample)
    return samples


class _Builder:
    """Tokenises the splits of one sub-dataset and notes what does not fit."""

    def __init__(self, task: Task, max_length: int, encoder: Encoder, notes: list[str]) -> None:
        self.task, self.max_length, self.encoder, self.notes = task, max_length, encoder, notes

    def examples(self, samples: Sequence[Sample]) -> list[Example]:
        whole = self.encoder.whole(samples)
        kept = [example for example in (cut(example, self.max_length) for example in whole) if example is not None]
        self._check(len(whole) - len(kept), len(whole), "training", "no learned token of them is left")
        shortened = sum(len(example) > self.max_length for example in whole) - (len(whole) - len(kept))
        if shortened > 0:
            self.notes.append(f"{shortened} training examples lost their end at {self.max_length} tokens")
        return kept

    def items(self, samples: Sequence[Sample], measure: Measure, kind: str) -> list[Item]:
        """The items of a split; those that a cut would make easier or unanswerable are left out."""
        items = build(samples, measure, self.encoder, self.max_length, self.task)
        kept = [item for item in items if all(0 < len(o) <= self.max_length and o.targets for o in item.options)]
        self._check(len(items) - len(kept), len(items), kind, "they do not fit")
        return kept

    def _check(self, out: int, of: int, kind: str, why: str) -> None:
        if not out:
            return
        found = f"{out} of {of} {kind} examples are left out: {why} within {self.max_length} tokens"
        if out == of or out > MOST_LEFT_OUT * of:
            raise DataError(complaint(found, "raise data.max_length", field=f"datasets.{self.task}"))
        self.notes.append(found)


def _fingerprint(train: Sequence[Example], validation: Sequence[Item], test: Sequence[Item], measure: Measure) -> str:
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
    return digest.hexdigest()
