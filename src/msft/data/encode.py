"""From samples to tokens, with the learned positions marked (design 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from msft.core.errors import ModelError, complaint
from msft.data.examples import Example
from msft.data.formats import Sample

Pieces: TypeAlias = Sequence[tuple[str, bool]]
"""The texts of an example in order, each with whether it is learned. Each is tokenised separately, so that the token
boundary between prompt and completion is the same as when the model is used."""

BATCH = 1000
"""Number of texts passed to the tokenizer at once."""


class Encoder:
    """One tokenizer for all sub-datasets.

    `tokenizer`: a transformers tokenizer; `chat_template`: Jinja text in place of its own. Raises ModelError if it
    has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, chat_template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.chat_template: str | None = chat_template or tokenizer.chat_template
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        if tokenizer.eos_token_id is None:
            found = f"the tokenizer of {self.name} has no end-of-sequence token"
            mend = "set eos_token in its tokenizer_config.json: a model learns from it where to stop"
            raise ModelError(complaint(found, mend, field="model"))
        self._before = self._added_before()

    def whole(self, samples: Sequence[Sample]) -> list[Example]:
        """The samples as tokens, not truncated. Learned: the completion and the end-of-sequence token, or the assistant
        turns.

        Raises ValueError where `conversation` does.
        """
        if any(sample.messages for sample in samples):
            return self._encoded([self.conversation(sample.messages, sample.given) for sample in samples], [], [])
        pieces = [((sample.prompt, False), (sample.completion, True)) for sample in samples]
        return self._encoded(pieces, self._before, [int(self.tokenizer.eos_token_id)])

    def options(self, samples: Sequence[Sample]) -> list[tuple[Example, ...]]:
        """For each sample, its prompt with each of its options, not truncated; only the option's tokens are scored."""
        pieces = [((sample.prompt, False), (option, True)) for sample in samples for option in sample.options]
        examples = iter(self._encoded(pieces, self._before, []))
        return [tuple(next(examples) for _ in sample.options) for sample in samples]

    def conversation(self, messages: Sequence[Mapping[str, Any]], given: int = 0) -> Pieces:
        """The rendered conversation, split where assistant turns begin and end (their end token is learned).

        Nothing is learned of the first `given` turns.

        The boundaries are found by rendering the first one, two, ... turns. Raises ValueError if the chat template
        cannot render the turns, or if a rendered beginning is not a prefix of the rendered conversation.
        """
        text = self._rendered(messages)
        pieces: list[tuple[str, bool]] = []
        at = 0
        for position, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            opening = self._rendered(messages[:position], ask=True) if position else ""
            closing = self._rendered(messages[: position + 1])
            if not (text.startswith(opening) and text.startswith(closing) and at <= len(opening) < len(closing)):
                found = f"the chat template of {self.name} renders turn {position + 1} differently when others follow"
                raise ValueError(found)
            pieces += [(text[at : len(opening)], False), (text[len(opening) : len(closing)], position >= given)]
            at = len(closing)
        return [*pieces, (text[at:], False)]

    def _rendered(self, messages: Sequence[Mapping[str, Any]], *, ask: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    chat_template=self.chat_template,
                    add_generation_prompt=ask,
                    tokenize=False,
                )
            )
        except TemplateError as error:
            raise ValueError(f"the chat template of {self.name} refuses the turns ({error})") from None

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
