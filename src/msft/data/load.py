"""From a configuration to tokenised sub-datasets: the entry point of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from msft.config.dataset_section import DatasetConfig
from msft.config.problems import folded, shown
from msft.config.schema import Config
from msft.config.temperature import rule
from msft.core.errors import ConfigError, DataError, complaint
from msft.core.mixing import taken
from msft.core.vocabulary import Task
from msft.data.cache import Cache
from msft.data.checks import Checked, check, held_out, note_repeated_tests, without_leaks
from msft.data.cuts import with_positions
from msft.data.encode import Encoder
from msft.data.examples import TaskData
from msft.data.grouping import check_groups_of, with_shared_validation
from msft.data.parts import parts
from msft.data.sources import Source
from msft.data.tokenise import tokenised


def load_tasks(config: Config, tokenizer: Any, positions: int | None = None) -> dict[Task, TaskData]:
    """Every sub-dataset, in the order of the configuration; those of `split_by` in the order of its values; the
    aggregate last.

    `tokenizer`: a transformers tokenizer, with the chat template that the model is trained with; `positions`: the most
    tokens that the model takes. Raises DataError, naming the problems of all data sets, and ModelError if the tokenizer
    cannot be used. Large data are tokenised once and then read from the cache.
    """
    tasks = _mixed(_prepared(config, tokenizer), config)
    if positions is None or positions <= config.data.max_length:
        return tasks
    return {task: _with_positions(part, positions) for task, part in tasks.items()}


def _prepared(config: Config, tokenizer: Any) -> dict[Task, TaskData]:
    """Every sub-dataset, from the cache if it is there. Raises DataError and ModelError."""
    day = date.fromisoformat(config.data.date) if config.data.date else None
    encoder = Encoder(tokenizer, day=day)
    drop = config.data.bad_rows == "drop"
    sources = [Source(dataset, config.data.seed, drop=drop) for dataset in config.scored]
    cache = Cache.of(config, sources, encoder)
    if cache is not None and (known := cache.read()) is not None:
        return known
    tasks = _checked(sources, config, encoder)
    train = without_leaks(tasks, config.data)
    note_repeated_tests(tasks)
    held = held_out(tasks, config.data) if config.method.refit else None
    if cache is None:
        return tokenised(tasks, train, config.data, encoder, None, held)
    try:
        return cache.publish(tokenised(tasks, train, config.data, encoder, cache, held))
    finally:
        cache.discard()


def _with_positions(part: TaskData, positions: int) -> TaskData:
    """The sub-dataset with notes that say how many tokens the model takes."""
    members = (replace(member, notes=with_positions(member.notes, positions)) for member in part.members)
    return replace(part, notes=with_positions(part.notes, positions), members=tuple(members))


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


def _checked(sources: Sequence[Source], config: Config, encoder: Encoder) -> dict[Task, Checked]:
    """Every data set, read and checked. Raises DataError with the problems of all of them."""
    entries: list[tuple[DatasetConfig, Source]] = []
    notes: dict[Task, list[str]] = {}
    errors: list[str] = []
    for source in sources:
        try:
            datasets, said = parts(source.dataset, source)
        except DataError as error:
            errors.append(str(error))
            continue
        for dataset in datasets:
            taken = {folded(task): task for task in notes}.get(folded(dataset.id))
            if taken is not None:
                found = f"the name is taken: {shown(taken)} is the same if case and width are ignored"
                fix = "give the data sets other ids"
                errors.append(complaint(found, fix, field=dataset.field))
                continue
            notes[dataset.id] = said if dataset is datasets[0] else []
            entries.append((dataset, source))
    tasks: dict[Task, Checked] = {}
    told: set[str] = set()
    for dataset, source in with_shared_validation(entries):
        try:
            tasks[dataset.id] = made = check(dataset, config.data, source, encoder)
        except DataError as error:
            errors.append(str(error))
            continue
        # What is said of the files is said once, with the first of their sub-datasets.
        made.notes.extend([*notes[dataset.id], *(source.notes if source.dataset.id not in told else ())])
        told.add(source.dataset.id)
    if errors:
        raise DataError("\n".join(errors))
    check_groups_of(tasks)
    return tasks


def _mixed(tasks: Mapping[Task, TaskData], config: Config) -> dict[Task, TaskData]:
    """The sub-datasets with what an epoch takes of each data set (`data.mixing`, `repeat`)."""
    repeats = {dataset.id: dataset.repeat or 1.0 for dataset in config.datasets}
    entries = [entry for part in tasks.values() for entry in part.entries]
    sizes, often = [size for _, size in entries], [repeats[dataset] for dataset, _ in entries]
    counts = iter(taken(sizes, often, rule(config.data.mixing)))
    mixed = {}
    for task, part in tasks.items():
        numbers = [next(counts) for _ in part.entries]
        members = tuple(replace(member, taken=count) for member, count in zip(part.members, numbers, strict=False))
        mixed[task] = replace(part, members=members, taken=sum(numbers))
    return mixed


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
