"""From samples to tokens, with the learned positions marked (design 3.4)."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from msft.core.errors import ModelError, complaint
from msft.data.chat_template import ChatTemplate
from msft.data.chats import Pieces, renderings
from msft.data.examples import Example
from msft.data.formats import Sample

BATCH = 1000
"""Number of texts passed to the tokenizer at once."""


class Encoder:
    """One tokenizer for all sub-datasets.

    `tokenizer`: a transformers tokenizer; `chat_template`: Jinja text in place of its own; `day`: the date that a chat
    template shows, by default today. Raises ModelError if the tokenizer has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, chat_template: str | None = None, day: datetime.date | None = None) -> None:
        self.tokenizer = tokenizer
        self.chat_template: str | None = chat_template or tokenizer.chat_template
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        self.chats = ChatTemplate(tokenizer, self.name, chat_template, day or datetime.date.today())
        if tokenizer.eos_token_id is None:
            found = f"the tokenizer of {self.name} has no end-of-sequence token"
            mend = "set eos_token in its tokenizer_config.json: a model learns from it where to stop"
            raise ModelError(complaint(found, mend, field="model"))
        self._before = self._added_before()

    def whole(self, samples: Sequence[Sample]) -> list[Example]:
        """The samples as tokens, not truncated. Learned: the completion and the end-of-sequence token, or the assistant
        turns. A conversation may give several examples (`renderings`); any other sample gives one.

        Raises ValueError where `renderings` does.
        """
        if any(sample.messages for sample in samples):
            pieces = [rendering.pieces for sample in samples for rendering in renderings(self.chats, sample)]
            return self._encoded(pieces, [], [])
        texts = [((sample.prompt, False), (sample.completion, True)) for sample in samples]
        return self._encoded(texts, self._before, [int(self.tokenizer.eos_token_id)])

    def options(self, samples: Sequence[Sample]) -> list[tuple[Example, ...]]:
        """For each sample, its prompt with each of its options, not truncated; only the option's tokens are scored."""
        pieces = [((sample.prompt, False), (option, True)) for sample in samples for option in sample.options]
        examples = iter(self._encoded(pieces, self._before, []))
        return [tuple(next(examples) for _ in sample.options) for sample in samples]

    def _added_before(self) -> list[int]:
        """The tokens that the tokenizer adds before a text: the beginning-of-sequence token, or none."""
        plain = self._tokens(["a"])[0]
        full = list(self.tokenizer("a")["input_ids"])
        starts = (at for at in range(len(full)) if full[at : at + len(plain)] == plain)
        return full[: next(starts, 0)]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            ids += self.tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _encoded(self, examples: Sequence[Pieces], before: list[int], after: list[int]) -> list[Example]:
        """The examples' tokens, between `before`, which is not learned, and `after`, which is learned."""
        tokens = iter(self._tokens([text for pieces in examples for text, _ in pieces]))
        return [_joined(pieces, tokens, before, after) for pieces in examples]


def _joined(pieces: Pieces, tokens: Iterator[list[int]], before: list[int], after: list[int]) -> Example:
    ids, trained = list(before), [False] * len(before)
    for _, learned in pieces:
        piece = next(tokens)
        ids += piece
        trained += [learned] * len(piece)
    ids += after
    trained += [True] * len(after)
    if trained:
        trained[0] = False  # there is no token before it to predict it from
    return Example(ids=np.asarray(ids, np.int32), trained=np.asarray(trained, np.bool_))


def cut(example: Example, max_length: int) -> Example | None:
    """The example truncated to `max_length` tokens, or None if this leaves no learned token."""
    if len(example) > max_length:
        example = Example(ids=example.ids[:max_length].copy(), trained=example.trained[:max_length].copy())
    return example if example.targets else None
