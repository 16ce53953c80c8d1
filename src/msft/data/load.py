"""From a configuration to tokenised sub-datasets: the entry point of this package."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from msft.config.problems import folded, shown
from msft.config.schema import Config, DataConfig
from msft.config.temperature import rule
from msft.core.errors import ConfigError, DataError, complaint
from msft.core.mixing import taken
from msft.core.vocabulary import Task
from msft.data.cache import Cache
from msft.data.chat_template import ChatTemplateError
from msft.data.checks import Checked, check, without_leaks
from msft.data.complaints import Complaints, note_of_dropped
from msft.data.encode import Encoder, cut
from msft.data.ends import TaskEnds
from msft.data.examples import Example, Item, Measure, TaskData
from msft.data.formats import Sample
from msft.data.items import build
from msft.data.own_scorer import fingerprint
from msft.data.parts import parts
from msft.data.samples import Samples, batches
from msft.data.shots import after, draw
from msft.data.sources import Source

BATCH = 2000
"""Number of samples tokenised at once."""
MOST_LEFT_OUT = 0.1
"""Maximum share of a split that may be left out because of `max_length`; more is a mistake in the configuration."""


def load_tasks(config: Config, tokenizer: Any) -> dict[Task, TaskData]:
    """Every sub-dataset, in the order of the configuration; those of `split_by` in the order of its values.

    `tokenizer`: a transformers tokenizer, with the chat template that the model is trained with. Raises DataError,
    naming the problems of all data sets, and ModelError if the tokenizer cannot be used. Large data are tokenised once
    and then read from the cache.
    """
    encoder = Encoder(tokenizer, day=date.fromisoformat(config.data.date) if config.data.date else None)
    drop = config.data.bad_rows == "drop"
    sources = [Source(dataset, config.data.seed, drop=drop) for dataset in config.datasets]
    cache = Cache.of(config, sources, encoder)
    if cache is not None and (known := cache.read()) is not None:
        return _mixed(known, config)
    tasks: dict[Task, Checked] = {}
    errors: list[str] = []
    for source in sources:
        try:
            datasets, notes = parts(source.dataset, source)
        except DataError as error:
            errors.append(str(error))
            continue
        for dataset in datasets:
            taken = {folded(task): task for task in tasks}.get(folded(dataset.id))
            if taken is not None:
                found = f"the name is taken: {shown(taken)} is the same if case and width are ignored"
                mend = "give the data sets other ids"
                errors.append(complaint(found, mend, field=f"datasets.{dataset.id}"))
                continue
            try:
                tasks[dataset.id] = check(dataset, config.data, source, encoder)
                tasks[dataset.id].notes.extend([*notes, *source.notes] if dataset is datasets[0] else ())
            except DataError as error:
                errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    train = without_leaks(tasks, config.data)
    if cache is None:
        return _mixed(_encoded(tasks, train, config.data, encoder, None), config)
    try:
        return _mixed(cache.publish(_encoded(tasks, train, config.data, encoder, cache)), config)
    finally:
        cache.discard()


def dated(config: Config, tokenizer: Any) -> Config:
    """The configuration with `data.date` set, to today unless it is given, if the chat template reads the date."""
    if config.data.date is not None or not Encoder(tokenizer).chats.has_clock:
        return config
    return on_day(config, date.today().isoformat())


def on_day(config: Config, day: str | None) -> Config:
    """The configuration with `data.date` set to `day` if neither is missing and none is given."""
    if day is None or config.data.date is not None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"date": day})})


def _mixed(tasks: Mapping[Task, TaskData], config: Config) -> dict[Task, TaskData]:
    """The sub-datasets with what an epoch takes of each (`data.mixing`, `repeat`)."""
    repeats = {dataset.id: dataset.repeat or 1.0 for dataset in config.datasets}
    sizes = [len(part.train) for part in tasks.values()]
    counts = taken(sizes, [repeats[part.dataset] for part in tasks.values()], rule(config.data.mixing))
    return {task: replace(part, taken=count) for (task, part), count in zip(tasks.items(), counts, strict=True)}


def _encoded(
    tasks: Mapping[Task, Checked],
    train: Mapping[Task, Samples],
    data: DataConfig,
    encoder: Encoder,
    cache: Cache | None,
) -> dict[Task, TaskData]:
    """The sub-datasets as tokens. Raises DataError if too many examples do not fit."""
    made: dict[Task, TaskData] = {}
    inside: dict[Task, frozenset[int]] = {}
    errors: list[str] = []
    for task, checked in tasks.items():
        builder = _Builder(task, data, encoder, checked.notes)
        try:
            stream = builder.examples(train[task])
            examples = list(stream) if cache is None else cache.pack(f"{len(made)}.train", stream)
            measure = checked.form.measure
            asked = checked.dataset.scorer.shots if checked.dataset.scorer else None
            shots = draw(train[task], asked, task) if asked else []
            items = {
                kind: builder.items([after(shots, sample) for sample in samples], measure, kind)
                for kind, samples in checked.part.held.items()
            }
        except DataError as error:
            errors.append(str(error))
            continue
        except ChatTemplateError as error:  # every row was rendered before, but not with shots or in part
            errors.append(complaint(str(error), error.fix, field=f"datasets.{task}.scorer"))
            continue
        made[task] = TaskData(
            task=task,
            train=examples,
            validation=items["validation"],
            test=items["test"],
            measure=measure,
            fingerprint=_fingerprint(examples, items["validation"], items["test"], measure),
            ends=builder.ends.found,
            dataset=checked.entry,
            notes=tuple(checked.notes),
        )
        inside[task] = builder.ends.inside
    if errors:
        raise DataError("\n".join(errors))
    ends = {end for part in made.values() for end in part.ends}
    return {task: _told(part, sorted(inside[task] & ends), encoder) for task, part in made.items()}


def _told(part: TaskData, cut: Sequence[int], encoder: Encoder) -> TaskData:
    """The sub-dataset with a note on the end tokens, `cut`, after which its answers go on."""
    if not cut:
        return part
    texts = " and ".join(map(encoder.end_rule.text, cut))
    note = f"some answers go on after {texts}, where the final model stops. Fix: write something else there"
    return replace(part, notes=(*part.notes, note))


def chat_template(given: str | None) -> str | None:
    """The Jinja text: the content of the file that `given` names, or `given` itself. Raises ConfigError for neither."""
    if given is None or "{" in given:
        return given
    try:
        if Path(given).is_file():
            return Path(given).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        found = f"{shown(given)} cannot be read ({type(error).__name__})"
        raise ConfigError(complaint(found, "save the template as UTF-8 text", field="model.chat_template")) from None
    found = f"{shown(given)} is neither a file nor a template: without a brace every example would be this text"
    raise ConfigError(complaint(found, "give Jinja text, or a file that holds it", field="model.chat_template"))


class _Builder:
    """Tokenises the splits of one sub-dataset and notes what does not fit."""

    def __init__(self, task: Task, data: DataConfig, encoder: Encoder, notes: list[str]) -> None:
        self.task, self.max_length, self.encoder, self.notes = task, data.max_length, encoder, notes
        self.drop = data.bad_rows == "drop"
        self.ends = TaskEnds(encoder.end_rule)

    def examples(self, samples: Sequence[Sample]) -> Iterator[Example]:
        """The examples truncated to `max_length`, without those that keep no learned token.

        Raises DataError at the end if these are too many.
        """
        out = shortened = made = 0
        said: Counter[str] = Counter()
        for batch in batches(samples, BATCH):
            for whole in self.encoder.whole(batch, said):
                made += 1
                self.ends.add(whole)
                example = cut(whole, self.max_length)
                if example is None:
                    out += 1
                    continue
                shortened += len(whole) > self.max_length
                yield example
        self._check(out, made, "training", "no learned token of them is left")
        if made > len(samples):
            self.notes.append(
                f"{len(samples)} conversations became {made} training examples: the chat template writes earlier turns "
                "differently when others follow, or ends them with no special token, so a turn is learned as it is "
                "written when it is the last; of a validation or test conversation, the last assistant turn is scored"
            )
        if shortened:
            self.notes.append(f"{shortened} training examples were truncated to {self.max_length} tokens")
        self.notes += [f"{count} of {made} training examples: {what}" for what, count in said.items() if count]

    def items(self, samples: Sequence[Sample], measure: Measure, kind: str) -> list[Item]:
        """The items of a split, without those that truncation would make easier or unanswerable."""
        field = f"datasets.{self.task}"
        complaints = Complaints(field, drop=self.drop)
        items = build(samples, measure, self.encoder, self.max_length, complaints, self.ends.found)
        self.notes.extend(note_of_dropped(complaints.dropped, len(samples), field, f"{kind} rows"))
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
