"""Tokenised examples, which this package passes to scoring and engine. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msft.core.vocabulary import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One token sequence and the positions whose tokens are learned (or scored).

    `trained[j]` says that token j is a target, predicted from the tokens before it; `trained[0]` is always False.
    """

    ids: NDArray[np.int32]
    """[length]"""
    trained: NDArray[np.bool_]
    """[length]"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Number of trained tokens."""
        return int(self.trained.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One validation or test item: the sequences whose likelihood decides its score.

    `choice`: one sequence per option; option number `answer` is correct. Other measures: one sequence; a generating
    measure starts from its tokens before the first trained one.
    """

    options: tuple[Example, ...]
    answer: int = 0
    option_bytes: tuple[int, ...] = ()
    """UTF-8 bytes of each option's text, for `normalize: byte`."""
    repeated: str = ""
    """Generating measures: the end of the prompt's text that the first learned token holds too, so that the generated
    text begins with it."""
    reference: str = ""
    """`generate`: the correct answer, to which the extracted answer is compared."""
    choices: int = 0
    """`generate`: number of the row's choices, each of which has a letter; 0 if it is not known. Not in the
    fingerprint, which earlier versions made without it."""
    fields: Mapping[str, Any] | None = None
    """A user's own scorer: the prompt, the completion and the row."""
    place: str = ""
    """Generating measures: file and line, for messages."""

    @property
    def prompt(self) -> NDArray[np.int32]:
        """[tokens] the tokens before the first scored token of the first option."""
        first = self.options[0]
        return first.ids[: int(np.argmax(first.trained))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a sub-dataset is scored (design 3.11)."""

    name: str
    """`choice`, `exact_match`, `generate` or `loss`; or a user's own scorer as `module:function`."""
    normalize: Literal["none", "token", "byte"] = "none"
    """`choice` only: what an option's log-likelihood is divided by."""
    control: Literal["control", "report"] = "control"
    """Which of the scorer's two scores is the search score."""
    extract: Literal["####", "regex", "letter", "number", "math", "text"] = "text"
    """`generate` only: how the answer is extracted from the generated text."""
    pattern: str = ""
    """`extract: regex` only."""
    stop: tuple[str, ...] = ()
    """Generating measures: texts that end the generated text and are not part of it."""
    max_new_tokens: int = 0
    """Generating measures: maximum number of generated tokens."""

    @property
    def own(self) -> bool:
        """Whether it is a user's own scorer."""
        return ":" in self.name

    @property
    def generates(self) -> bool:
        """Whether the model has to generate text to be scored."""
        return self.name == "generate" or self.own


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One data set of a group. Its examples and items lie side by side in those of the group, in the members' order."""

    task: Task
    dataset: str
    """The id of the entry of `datasets` that it comes from."""
    train: int
    """Numbers of its examples and items."""
    validation: int
    test: int
    held: int
    """Number of its validation rows as training examples (`TaskData.held_out`)."""
    taken: int
    """Examples that an epoch takes."""
    left_out: int
    """Tokens of its training examples that truncation left out."""
    without_chat_template: bool
    """As that of `TaskData`."""
    ends: tuple[int, ...]
    """As those of `TaskData`."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """One sub-dataset of the search, ready to train on and to score: a data set, or a group of them."""

    task: Task
    train: Sequence[Example]
    validation: Sequence[Item]
    test: Sequence[Item]
    """Empty where there is no test split."""
    measure: Measure
    fingerprint: str
    """SHA-256 of every token, mask and answer, and of the measure."""
    ends: tuple[int, ...] = ()
    """The tokens that end what the training examples teach: the end-of-sequence token first. Not in the fingerprint:
    they follow from the examples and the tokenizer."""
    notes: tuple[str, ...] = ()
    """Notes for people: what was truncated or left out."""
    dataset: str = ""
    """The id of the entry of `datasets` that it comes from."""
    taken: int | None = None
    """Examples that an epoch takes; None: each once."""
    members: tuple[Member, ...] = ()
    """The data sets of a group; empty for a data set by itself."""
    held_out: Sequence[Example] = ()
    """The validation rows that were carved from the training rows, as training examples: for a run on all rows that
    follows the search (`method.refit`), else none. Their numbers follow those of `train`."""
    left_out: int = 0
    """Tokens of the training examples that truncation to `data.max_length` left out."""
    without_chat_template: bool = False
    """Whether prompts and completions are learned as they stand, though the tokenizer has a chat template."""
    aggregate: bool = False
    """Whether it is only scored, never trained on: it chooses the final model (`aggregate`)."""

    @property
    def each(self) -> tuple[TaskData, ...]:
        """Its data sets one by one: those of a group, or itself."""
        made, at = list[TaskData](), [0, 0, 0, 0]
        for member in self.members:
            ends = [start + count for start, count in zip(at, _counts(member), strict=True)]
            train, validation, test, held = (slice(*span) for span in zip(at, ends, strict=True))
            made.append(
                replace(
                    self,
                    task=member.task,
                    train=self.train[train],
                    validation=self.validation[validation],
                    test=self.test[test],
                    ends=member.ends,
                    notes=member.notes,
                    dataset=member.dataset,
                    taken=member.taken,
                    left_out=member.left_out,
                    without_chat_template=member.without_chat_template,
                    members=(),
                    held_out=self.held_out[held],
                )
            )
            at = ends
        return tuple(made) or (self,)

    @property
    def tests(self) -> dict[Task, Sequence[Item]]:
        """Data set -> its test items, of those that have any."""
        if not self.members:
            return {self.task: self.test} if self.test else {}
        ends = accumulate(member.test for member in self.members)
        spans = {
            member.task: self.test[end - member.test : end] for member, end in zip(self.members, ends, strict=True)
        }
        return {task: items for task, items in spans.items() if items}

    @property
    def entries(self) -> list[tuple[str, int]]:
        """For each data set that is trained on: the id of the entry of `datasets`, and the number of examples."""
        if self.aggregate:
            return []
        return [(member.dataset, member.train) for member in self.members] or [(self.dataset, len(self.train))]

    @property
    def size(self) -> int:
        """Examples that an epoch takes."""
        return len(self.train) if self.taken is None else self.taken

    @property
    def whole_size(self) -> int:
        """Examples that an epoch takes where it has the held-out rows too: of each data set as often as without."""
        if self.aggregate:
            return 0
        sizes = [(m.taken, m.train, m.held) for m in self.members] or [(self.size, len(self.train), len(self.held_out))]
        return sum(all_rows(*each) for each in sizes)

    def examples(self, *, whole: bool) -> Sequence[Example]:
        """The training examples by number; with `whole`, those that are held out follow."""
        return [*self.train, *self.held_out] if whole else self.train

    def example(self, index: int) -> Example:
        """A training example, or from number `len(train)` on one that is held out."""
        return self.train[index] if index < len(self.train) else self.held_out[index - len(self.train)]


def all_rows(taken: int, pool: int, held: int) -> int:
    """What an epoch takes of a pool and of what is held out, if it takes so much of the pool alone; rounded up."""
    return -(-taken * (pool + held) // pool)


def _counts(member: Member) -> tuple[int, int, int, int]:
    return member.train, member.validation, member.test, member.held
