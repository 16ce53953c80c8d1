"""`msft init`: a commented configuration for a folder of data files, formats and scorers guessed from their rows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from msft.config.schema import DatasetConfig
from msft.config.yaml12 import RESERVED, SAFE_UNQUOTED
from msft.core.errors import ConfigError, DataError, complaint
from msft.data.detect import detect
from msft.data.formats import Format
from msft.data.rows import Row
from msft.data.sources import Source

ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
PARTS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
"""What the split of a file or a row may be called, and what it is."""
PART = re.compile(rf"[-_.]({'|'.join(PARTS)})$", re.IGNORECASE)
"""The end of a file's name that says which part it is."""
LOOKED_AT = 200
"""Rows from which the scorer is guessed."""
SHORT = 40
"""Characters up to which a completion is an answer that can be right as a whole, rather than a text."""

HEAD = """\
# yaml-language-server: $schema=msft.schema.json
# For completion in your editor, once: msft schema > msft.schema.json
# Then: msft check FILE (what this will take), msft preview FILE (what the model sees), msft train FILE

model:
  name_or_path: {model}  # a hub id, or a folder
method:
  name: msft  # or sft, one_pass, sro, ...: the methods that it is measured against
  preset: robust  # or release, the paper's published settings
  # budget: 4.0  # msft: epochs of a roll-out, the paper's C
  max_epochs: 10.0  # epochs at which training ends at the latest
"""
TAIL = """\
data:
  seed: 20
  max_length: 1024  # tokens; longer examples lose their end
training:
  batch_size: 64  # examples of an optimizer step, whatever the hardware
  learning_rate: 1e-5
# peft: {r: 16, lora_alpha: 32}  # trains and keeps an adapter alone
output: runs/first
"""


def write(folder: Path, output: Path, model: str | None = None) -> None:
    """Writes the configuration. Raises ConfigError or DataError; never overwrites a file."""
    if output.exists():
        mend = "name another file with -o, or remove this one"
        raise ConfigError(complaint("the file is already there", mend, file=output))
    if not folder.is_dir():
        raise ConfigError(complaint("there is no such folder", "give the folder of your data files", file=folder))
    found = _files(folder)
    if not found:
        mend = f"put in {', '.join(ENDINGS)} files, each a sub-dataset of its own"
        raise ConfigError(complaint("the folder holds no data files", mend, file=folder))
    sections: list[str] = []
    errors: list[str] = []
    for name, files in found.items():
        try:
            sections.append(_section(name, files, output.absolute().parent))
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    text = HEAD.replace("FILE", str(output)).format(model=_quoted(model or "Qwen/Qwen2.5-0.5B"))
    text += "datasets:\n" + "".join(sections) + TAIL
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("x", encoding="utf-8") as file:
        file.write(text)


def _files(folder: Path) -> dict[str, dict[str, Path]]:
    """The files of each sub-dataset by part: task.jsonl, task_train.jsonl with task_test.jsonl, or task/train.jsonl."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if path.suffix not in ENDINGS or not path.is_file() or path.name.startswith("."):
            continue
        ending = PART.search(path.stem)
        if path.stem.casefold() in PARTS:
            name, part = path.resolve().parent.name, path.stem
        elif ending:
            name, part = path.stem[: ending.start()], ending[1]
        else:
            name, part = path.stem, "train"
        files = found.setdefault(_id(name), {})
        kind = PARTS[part.casefold()]
        if kind in files:
            clash = f"{files[kind].name} and {path} would both be the {kind} part of {_id(name)}"
            raise ConfigError(complaint(clash, "rename one of them, or move it elsewhere", file=folder))
        files[kind] = path
    return found


def _id(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:60] or "data"


def _section(name: str, files: dict[str, Path], base: Path) -> str:
    """The entry of one sub-dataset under `datasets`."""
    if "train" not in files:
        found, mend = f"the sub-dataset {name} has no training file", "add one, or remove its other files"
        raise DataError(complaint(found, mend, file=next(iter(files.values()))))
    path = files["train"]
    bare = DatasetConfig(id=name, path=str(path.resolve()))
    rows = Source(bare, 0).rows()
    splits = _splits(rows)
    try:
        form = detect(bare, rows)
        described = f"format: {_format(form)}"
        scorer = _scorer(form, rows)
    except DataError:
        columns = ", ".join(dict.fromkeys(column for row in rows[:LOOKED_AT] for column in row.values))
        described = f"no known format: say with columns or template which of these is what: {columns}"
        scorer = "{name: loss}"
    lines = [f"  # {len(rows)} rows; {described}", f"  - id: {_quoted(name)}", f"    path: {_relative(path, base)}"]
    if "train" in splits:
        lines.append(f"    where: {{split: {splits['train']}}}")
    lines.append("    # max_samples: 1800  # training examples at most, a seeded sample")
    for part, otherwise in (("validation", "{fraction: 0.1}"), ("test", None)):
        if part in files:
            lines.append(f"    {part}: {{path: {_relative(files[part], base)}}}")
        elif part in splits:
            lines.append(f"    {part}: {{where: {{split: {splits[part]}}}}}")
        elif otherwise:
            lines.append(f"    {part}: {otherwise}  # carved from the rows above, and never trained on")
        else:
            lines.append(f"    # {part}: {{fraction: 0.1}}  # scored once, at the end: base model and answer")
    return "\n".join([*lines, f"    scorer: {scorer}", ""])


def _splits(rows: Sequence[Row]) -> dict[str, str]:
    """What each part is called in a `split` column, where there is one that names the training rows."""
    names = sorted({str(row.values.get("split")) for row in rows if isinstance(row.values.get("split"), str)})
    parts = {PARTS[name.casefold()]: _quoted(name) for name in reversed(names) if name.casefold() in PARTS}
    return parts if "train" in parts else {}


def _format(form: Format) -> str:
    if form.conversation:
        return "messages"
    return " + ".join(f"{role} ({column})" if role != column else role for role, column in form.roles.items())


def _scorer(form: Format, rows: Sequence[Row]) -> str:
    """Choices are chosen among, short answers are right or wrong, texts have a likelihood."""
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
            continue  # `msft check` will name the row


def _quoted(text: str) -> str:
    """A YAML scalar: JSON's strings are YAML's."""
    plain = SAFE_UNQUOTED.fullmatch(text) and text.lower() not in RESERVED
    return text if plain else json.dumps(text, ensure_ascii=False)


def _relative(path: Path, base: Path) -> str:
    return _quoted(os.path.relpath(path.resolve(), base.resolve()))
