"""`msft init`: a commented configuration for a folder of data files; formats and scorers are guessed from the rows."""

from __future__ import annotations

import itertools
import json
import os
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msft.cli.data_folder import Place, data_in, no_training_split
from msft.config.dataset_section import DatasetConfig
from msft.config.yaml12 import RESERVED, SAFE_UNQUOTED
from msft.core.errors import ConfigError, DataError, complaint
from msft.core.plain_words import many
from msft.data.detect import detect
from msft.data.formats import Format
from msft.data.local_files import PACKED, SUFFIXES, ending, unpack
from msft.data.rows import Row
from msft.data.sources import Source
from msft.data.splits import DEFAULT_LEAST, SPLIT_COLUMN, named_splits
from msft.report.words import listed

LOOKED_AT = 200
"""Number of rows from which the scorer is guessed."""
SHOWN = 8
"""Number of files that a note lists."""
SHORT = 40
"""Completions of at most this many characters are scored as right or wrong; longer ones by likelihood."""

CARVED = {
    "validation": f"{{max_samples: 150}}  # default: a tenth of the rows, at least {DEFAULT_LEAST}; not trained on",
    "test": "{fraction: 0.1}  # scored once, at the end: base model and final model",
}
"""The comment in the place of a split that no file and no column gives."""

HEAD = """\
# yaml-language-server: $schema=msft.schema.json
# For completion in your editor, run once: msft schema > msft.schema.json
# Then: msft check FILE (cost, before training), msft preview FILE (examples as the model sees them), msft train FILE

model:
  name_or_path: {model}  # a hub id, or a folder
method:
  name: auto  # plain fine-tuning, and a second run where one can pay; msft: always a search; or sft, one_pass, sro, ...
  max_epochs: 10.0  # maximum epochs of the final model
  # refit: true  # for sft and msft: at the end, train again on all rows, those that were held out for validation too
"""
TAIL = """\
data:
  seed: 20
  max_length: 1024  # tokens; longer examples are truncated at the end
training:
  batch_size: 64  # examples per optimizer step, on any hardware
  learning_rate: 1e-5  # with peft, usually 1e-4 to 3e-4
  average: 1  # epochs over which the weights are averaged, against the noise of a constant rate
  # schedule: linear  # in place of `average`, for sft and msft: the rate falls to 0 by max_epochs
# peft: {r: 16, lora_alpha: 32}  # trains and saves a LoRA adapter only
output: runs/first
"""


def write(folder: Path, output: Path, model: str | None = None) -> list[str]:
    """Writes the configuration; returns what people must know of it. Raises ConfigError or DataError; never overwrites
    a file."""
    if output.exists():
        fix = "name another file with -o, or remove this one"
        raise ConfigError(complaint("the file already exists", fix, file=output))
    if not folder.is_dir():
        raise ConfigError(complaint("there is no such folder", "name the folder of your data files", file=folder))
    found, unread = data_in(folder)
    if not found:
        fix = f"add {', '.join(SUFFIXES)} files, one per sub-dataset"
        if packed := [file for file in unread if ending(file) in PACKED]:
            fix = f"unpack them: {unpack(packed[0])}"
        raise ConfigError(complaint("the folder holds no data files" + _named(unread), fix, file=folder))
    sections: dict[str, Section] = {}
    errors: list[str] = []
    for name, places in found.items():
        try:
            sections[name] = _section(name, places, output.absolute().parent)
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    text = HEAD.replace("FILE", str(output)).format(model=_quoted(model or "Qwen/Qwen2.5-0.5B"))
    text += "datasets:\n" + "".join(section.text for section in sections.values()) + TAIL
    _write_new(output, text)
    odd = [name for name, section in sections.items() if not section.known]
    packed = [file for file in unread if ending(file) in PACKED]
    other = [file for file in unread if file not in packed]
    notes = [f"not read, as their endings are not known{_named(other)}"] if other else []
    if packed:
        notes.append(f"not read, as they are compressed{_named(packed)}. Fix: unpack them: {unpack(packed[0])}")
    fix = "Fix: assign their columns in the file, by `columns` or `template`"
    return [*notes, *([f"no known format has the columns of {listed(odd)}. {fix}"] if odd else [])]


def _write_new(file: Path, text: str) -> None:
    """Raises ConfigError; a file that cannot be written whole is not left there."""
    made = False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            made = True
            out.write(text)
    except OSError as error:
        if made:
            file.unlink(missing_ok=True)
        fix = "check the folder's permissions and the free space on the disk, or name another file with -o"
        raise ConfigError(complaint(f"the file cannot be written ({error.strerror})", fix, file=file)) from error


def _named(files: Sequence[Path]) -> str:
    more = f", and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return f": {', '.join(file.name for file in files[:SHOWN])}{more}" if files else ""


class Section(NamedTuple):
    """An entry of `datasets`."""

    text: str
    known: bool
    """Whether its rows have a known format."""


def _section(name: str, places: Mapping[str, Place], base: Path) -> Section:
    """The entry of one sub-dataset."""
    if "train" not in places:
        other = next(iter(places.values()))
        if other.split is not None:
            raise DataError(no_training_split(other.path))
        found, fix = f"the sub-dataset {name} has no training file", "add one, or remove its other files"
        raise DataError(complaint(found, fix, file=other.path))
    path, named = places["train"]
    bare = DatasetConfig(id=name, path=str(path.resolve()), split=named or "train")
    rows = Source(bare, 0).rows()
    splits, others = _splits(rows)
    columns = list(dict.fromkeys(column for row in rows[:LOOKED_AT] for column in row.values))
    lettered = _lettered(bare, columns, rows)
    bare, known = lettered or bare, True
    try:
        form = detect(bare, rows)
        used = [column for column in form.columns if column in columns]
        described = f"format: {' + '.join(used)}"
        unused = [column for column in columns if column not in {*used, *([SPLIT_COLUMN] if splits else [])}]
        if unused:
            described += f"; not used: {', '.join(unused)}"
        scorer = _scorer(form, rows)
    except DataError:
        described = f"no known format: assign these columns with `columns` or `template`: {', '.join(columns)}"
        scorer, known = "{name: loss}", False
    described = f"{many(len(rows), 'row')}; {described}"
    lines = [f"  # {described}", f"  - id: {_quoted(name)}", f"    path: {_relative(path, base)}"]
    lines += [f"    split: {_quoted(named)}"] if named is not None and named != "train" else []
    lines += [f"    columns: {_flow(bare.columns)}"] if lettered else []
    if "train" in splits:
        unused_splits = f"  # not used: {', '.join(others)}" if others else ""
        lines.append(f"    where: {{split: {splits['train']}}}{unused_splits}")
    lines.append("    # max_samples: 1800  # maximum number of training examples, sampled with a seed")
    for part in ("validation", "test"):
        if part in places:
            file, split = places[part]
            where = [f"path: {_relative(file, base)}"] if split is None or file != path else []
            where += [] if split is None else [f"split: {_quoted(split)}"]
            lines.append(f"    {part}: {{{', '.join(where)}}}")
        elif part in splits:
            lines.append(f"    {part}: {{where: {{split: {splits[part]}}}}}")
        else:
            lines.append(f"    # {part}: {CARVED[part]}")
    return Section("\n".join([*lines, f"    scorer: {scorer}", ""]), known)


def _lettered(bare: DatasetConfig, columns: Sequence[str], rows: Sequence[Row]) -> DatasetConfig | None:
    """With `columns` for choices that lie in columns A, B, C, ... beside a question and an answer; None for others."""
    letters = list(itertools.takewhile(columns.__contains__, string.ascii_uppercase))
    if len(letters) < 2 or not {"question", "answer"} <= {*columns}:
        return None
    named = all(row.values.get("answer") in letters for row in rows[:LOOKED_AT])
    choices = {letter: letter for letter in letters} if named else letters
    made = DatasetConfig.model_validate({**bare.model_dump(), "columns": {"choices": choices, "answer": "answer"}})
    try:
        form = detect(made, rows)
        for row in rows[:LOOKED_AT]:
            form.sample(row)
    except (DataError, ValueError):
        return None
    return made


def _splits(rows: Sequence[Row]) -> tuple[dict[str, str], list[str]]:
    """The value of each split in a `split` column, as YAML, and the values that name no split; empty if no such column
    names training rows."""
    names = {str(row.values.get(SPLIT_COLUMN)) for row in rows if row.values.get(SPLIT_COLUMN) is not None}
    parts = named_splits(names)
    known = {part: [_quoted(name) for name in found] for part, found in parts.items()}
    others = sorted(names - {name for found in parts.values() for name in found}) if parts else []
    return {part: found[0] if len(found) == 1 else f"[{', '.join(found)}]" for part, found in known.items()}, others


def _scorer(form: Format, rows: Sequence[Row]) -> str:
    """`choice` for choices, `exact_match` for short completions, `loss` for longer texts."""
    if form.measure.name == "choice":
        return "{name: choice, of: text, normalize: token}"
    lengths = sorted(_completion_lengths(form, rows))
    most = lengths[int(0.95 * (len(lengths) - 1))] if lengths else SHORT + 1
    return "{name: exact_match}" if most <= SHORT else "{name: loss}"


def _completion_lengths(form: Format, rows: Sequence[Row]) -> Iterator[int]:
    for row in rows[:LOOKED_AT]:
        if form.conversation:
            continue
        try:
            yield len(form.sample(row).completion.strip())
        except ValueError:
            continue  # `msft check` reports the row


def _quoted(text: str) -> str:
    """A YAML scalar; a JSON string is valid YAML."""
    plain = SAFE_UNQUOTED.fullmatch(text) and text.lower() not in RESERVED
    return text if plain else json.dumps(text, ensure_ascii=False)


def _flow(value: object) -> str:
    """Names, and lists and objects of them, as YAML in one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_quoted(key)}: {_flow(below)}' for key, below in value.items())}}}"
    return f"[{', '.join(map(_flow, value))}]" if isinstance(value, list | tuple) else _quoted(str(value))


def _relative(path: Path, base: Path) -> str:
    return _quoted(os.path.relpath(path.resolve(), base.resolve()))
