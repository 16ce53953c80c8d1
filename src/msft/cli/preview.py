"""`msft preview`: a few examples as the model sees them, learned tokens marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from msft.cli.quiet import quiet
from msft.config.problems import one_of, shown
from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.core.plain_words import harmless, many
from msft.core.vocabulary import Task
from msft.data.ends import special_ids
from msft.data.examples import Example, TaskData
from msft.data.load import load_tasks
from msft.model.open import load_tokenizer
from msft.report.words import clean
from msft.run.job import model_source
from msft.screen.console import new_console

LEARNED, SPECIAL, RULE = "bold green", "reverse", "dim"
OPEN, CLOSE = "[[", "]]"
"""Marks around learned tokens if there are no colours."""


def run(config: Config, *, rows: int = 3, task: Task | None = None) -> None:
    """Prints `rows` training examples and a validation item of each sub-dataset, or of `task` alone."""
    quiet()
    tokenizer = load_tokenizer(model_source(config))
    # A group is read as a whole: its validation items may be those of another of its data sets.
    groups = {dataset.group for dataset in config.datasets if dataset.group and task in (dataset.id, dataset.group)}
    named = tuple(dataset for dataset in config.datasets if dataset.id == task or dataset.group in groups)
    data = load_tasks(config.model_copy(update={"datasets": named}) if named else config, tokenizer)
    parts = {part.task: part for found in data.values() for part in found.each}
    if task is not None and task not in {*parts, *data}:
        found = f"there is no sub-dataset {shown(task)}"
        raise ConfigError(complaint(found, one_of(task, dict.fromkeys([*data, *parts])), field="--task"))
    console = new_console(highlight=False)
    writer = _Writer(tokenizer, console)
    console.print(Text("Learned tokens are green." if writer.colour else
                       f"Learned tokens are in {OPEN}{CLOSE}.", style=RULE))  # fmt: skip
    asked = data[task].each if task in data else [part for part in parts.values() if task in (None, part.task)]
    for part in asked:
        writer.part(part, rows)


class _Writer:
    def __init__(self, tokenizer: Any, console: Console) -> None:
        self.tokenizer, self.console = tokenizer, console
        self.colour = console.is_terminal and console.color_system is not None
        self.special = special_ids(tokenizer)

    def part(self, data: TaskData, rows: int) -> None:
        """The first training examples, and the first validation item with its options."""
        for number, example in zip(range(1, rows + 1), data.train, strict=False):
            title = f"{clean(data.task)}  training example {number} of {len(data.train)}"
            self._print(f"{title}, {many(len(example), 'token')}, {example.targets} learned", self.text(example))
        if not data.validation:
            return
        item = data.validation[0]
        title = f"{clean(data.task)}  validation item 1 of {len(data.validation)}, scored by {data.measure.name}"
        if len(item.options) == 1:
            self._print(title, self.text(item.options[0]))
            return
        first = item.options[0]
        # A token that holds the end of the prompt and the beginning of an option is scored with that option.
        shared = min(map(_scored_from, item.options))
        text = Text()
        for piece, _, special in self._pieces(first, 0, shared):
            text.append(piece, SPECIAL if special else "")
        self._print(title, text)
        for number, option in enumerate(item.options):
            mark = "  right: " if number == item.answer else "  wrong: "
            scored = "".join(piece for piece, _, _ in self._pieces(option, _scored_from(option), len(option)))
            given = "".join(piece for piece, _, _ in self._pieces(option, shared, _scored_from(option)))
            self.console.print(Text.assemble(mark, given, self._learned(scored)), soft_wrap=True)

    def text(self, example: Example) -> Text:
        """The example's text: learned tokens marked, special tokens visible."""
        text = Text()
        for piece, learned, special in self._pieces(example, 0, len(example)):
            text.append(self._learned(piece) if learned else Text(piece, SPECIAL if special else ""))
        return text if self.colour else Text(text.plain.replace(CLOSE + OPEN, ""))

    def _learned(self, piece: str) -> Text:
        return Text(piece, LEARNED) if self.colour else Text(f"{OPEN}{piece}{CLOSE}")

    def _pieces(self, example: Example, start: int, stop: int) -> Iterator[tuple[str, bool, bool]]:
        """Runs of tokens of one kind: their text, whether they are learned, whether they are special."""
        kinds = [(bool(t), int(i) in self.special) for t, i in zip(example.trained, example.ids, strict=True)]
        while start < stop:
            end = start + 1
            while end < stop and kinds[end] == kinds[start]:
                end += 1
            # Decode from the start and remove the prefix: some tokenizers drop the space before the first word.
            yield printable(self._decoded(example, end).removeprefix(self._decoded(example, start))), *kinds[start]
            start = end

    def _decoded(self, example: Example, end: int) -> str:
        ids = example.ids[:end].tolist()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _print(self, title: str, text: Text) -> None:
        self.console.print()
        self.console.print(Text(title, style="bold"), soft_wrap=True)
        self.console.print(text, soft_wrap=True)


def _scored_from(option: Example) -> int:
    """The first of the tokens whose likelihood is an option's score."""
    return int(option.trained.argmax())


def printable(text: str) -> str:
    """The text with control and formatting characters as escapes, as they could move the cursor or reverse a line, and
    a model learns them; line breaks stay, and so do the characters that join letters or keep them apart."""
    return "".join(c if c == "\n" or harmless(c) else c.encode("unicode_escape").decode() for c in text)
