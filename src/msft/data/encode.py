"""From samples to tokens, with the learned positions marked (design 3.4)."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from msft.core.errors import ModelError, complaint
from msft.data.borders import PieceTokenizer, Tokens
from msft.data.chat_template import ChatTemplate
from msft.data.chats import renderings
from msft.data.ends import EndRule, learned_spans
from msft.data.examples import Example
from msft.data.formats import Sample

STRADDLES = "a token holds the border between what is learned and what is not, and is learned"
BEGUN = "the text begins with the token that the tokenizer puts before it, which is not repeated"
ENDED = "the completion ends with the end-of-sequence token, which is not repeated"
CLOSED = "the chat template ends a turn with no special token, so the end-of-sequence token follows it"
OPEN = "no special token ends the assistant's turns, and another turn follows the last one: no end is learned"


class Encoded(NamedTuple):
    """A sample as tokens, not truncated."""

    example: Example
    repeated: str
    """The end of the prompt's text that the first learned token holds too."""


class Encoder:
    """One tokenizer for all sub-datasets.

    `tokenizer`: a transformers tokenizer; `day`: the date that a chat template shows, by default today. Raises
    ModelError if the tokenizer has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, day: datetime.date | None = None) -> None:
        self.tokenizer = tokenizer
        self.chat_template: str | None = tokenizer.chat_template
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        self.chats = ChatTemplate(tokenizer, self.name, day or datetime.date.today())
        if tokenizer.eos_token_id is None:
            found = f"the tokenizer of {self.name} has no end-of-sequence token"
            fix = "set eos_token in its tokenizer_config.json: a model learns from it where to stop"
            raise ModelError(complaint(found, fix, field="model"))
        self.end_rule = EndRule(tokenizer)
        self._tokens = PieceTokenizer(tokenizer)
        self._before = self._added_before()

    @cached_property
    def chat_marks(self) -> Mapping[int, str]:
        """The special tokens that the chat template writes, apart from the end-of-sequence token, and their texts."""
        texts = {token: self.end_rule.text(token) for token in sorted(self.end_rule.special - {self.end_rule.eos})}
        return {token: text for token, text in texts.items() if text and text in (self.chat_template or "")}

    def whole(self, samples: Sequence[Sample], said: Counter[str] | None = None) -> list[Example]:
        """The samples as tokens, not truncated. Learned: the completion and the end-of-sequence token, or the assistant
        turns. A conversation may give several examples (`renderings`); any other sample gives one.

        `said` counts what people should know of the samples. Raises ValueError where `renderings` does.
        """
        return [made.example for made in self.encoded(samples, said)]

    def encoded(self, samples: Sequence[Sample], said: Counter[str] | None = None) -> list[Encoded]:
        """As `whole`, with the text of the prompt that a model repeats when it generates."""
        said = Counter() if said is None else said
        if any(sample.messages for sample in samples):
            rendered = [rendering.pieces for sample in samples for rendering in renderings(self.chats, sample)]
            return [self._conversation_of(tokens, said) for tokens in self._tokens(rendered)]
        pieces = [((sample.prompt, False), (sample.completion, True)) for sample in samples]
        return [self._completion_of(tokens, said) for tokens in self._tokens(pieces)]

    def options(self, samples: Sequence[Sample]) -> list[tuple[Example, ...]]:
        """For each sample, its prompt with each of its options, not truncated; only the option's tokens are scored.

        A token that holds the end of the prompt and the beginning of an option is the option's: such options share a
        shorter prompt.
        """
        pieces = [((sample.prompt, False), (option, True)) for sample in samples for option in sample.options]
        made = (_encoded(self._begun(tokens, Counter()), []).example for tokens in self._tokens(pieces))
        return [tuple(next(made) for _ in sample.options) for sample in samples]

    def _added_before(self) -> list[int]:
        """The tokens that the tokenizer adds before a text: the beginning-of-sequence token, or none."""
        plain = self._tokens.ids("a")
        full = list(self.tokenizer("a")["input_ids"])
        starts = (at for at in range(len(full)) if full[at : at + len(plain)] == plain)
        return full[: next(starts, 0)]

    def _completion_of(self, tokens: Tokens, said: Counter[str]) -> Encoded:
        """Prompt and completion: the end-of-sequence token follows, unless the completion ends with it."""
        ended = bool(len(tokens.ids)) and tokens.learned[-1] and tokens.ids[-1] == self.end_rule.eos
        said[STRADDLES] += tokens.straddling > 0
        said[ENDED] += bool(ended)
        return _encoded(self._begun(tokens, said), [] if ended else [self.end_rule.eos])

    def _conversation_of(self, tokens: Tokens, said: Counter[str]) -> Encoded:
        """A rendered conversation: the end-of-sequence token follows a last turn that no special token ends."""
        said[STRADDLES] += tokens.straddling > 0
        as_rendered = _encoded(tokens, [])
        last = [*learned_spans(as_rendered.example)][-1:]
        if not last or self.end_rule.ending(last[0]):
            return as_rendered
        closes = as_rendered.example.trained[-1]
        said[CLOSED if closes else OPEN] += 1
        return _encoded(tokens, [self.end_rule.eos]) if closes else as_rendered

    def _begun(self, tokens: Tokens, said: Counter[str]) -> Tokens:
        """The tokens after those that the tokenizer adds, of which the text may have brought some."""
        before, ids = self._before, tokens.ids
        own = next(size for size in range(len(before), -1, -1) if before[len(before) - size :] == ids[:size])
        said[BEGUN] += own > 0
        added = before[: len(before) - own]
        return tokens._replace(ids=added + ids, learned=np.append(np.zeros(len(added), np.bool_), tokens.learned))


def _encoded(tokens: Tokens, after: list[int]) -> Encoded:
    """The example of the tokens, with `after`, which is learned."""
    trained = np.append(tokens.learned, np.ones(len(after), np.bool_))
    # There is no token before the first one to predict it from: it is given, with what it holds of the prompt.
    repeated = "" if trained[:1].any() else tokens.repeated
    trained[:1] = False
    return Encoded(Example(ids=np.asarray(tokens.ids + after, np.int32), trained=trained), repeated)


def cut(example: Example, max_length: int) -> Example | None:
    """The example truncated to `max_length` tokens, or None if this leaves no learned token."""
    if len(example) > max_length:
        example = Example(ids=example.ids[:max_length].copy(), trained=example.trained[:max_length].copy())
    return example if example.targets else None
