"""From samples to tokens, with the learned positions marked (design 3.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from msft.core.errors import ModelError, complaint
from msft.data.borders import Pieces, PieceTokenizer, Tokens
from msft.data.ends import EndRule, learned_spans
from msft.data.examples import Example
from msft.data.formats import Sample

STRADDLES = "a token holds the border between what is learned and what is not, and is learned"
BEGUN = "the text begins with the token that the tokenizer puts before it, which is not repeated"
ENDED = "the completion ends with the end-of-sequence token, which is not repeated"
CLOSED = "the chat template ends a turn with no special token, so the end-of-sequence token follows the last turn"
OPEN = "no special token ends the assistant's turns, and another turn follows the last one: no end is learned"


class Encoded(NamedTuple):
    """A sample as tokens, not truncated."""

    example: Example
    repeated: str
    """The end of the prompt's text that the first learned token holds too."""


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
        self.end_rule = EndRule(tokenizer)
        self._tokens = PieceTokenizer(tokenizer)
        self._before = self._added_before()

    def whole(self, samples: Sequence[Sample], said: Counter[str] | None = None) -> list[Example]:
        """The samples as tokens, not truncated. Learned: the completion and the end-of-sequence token, or the assistant
        turns.

        `said` counts what people should know of the samples. Raises ValueError where `conversation` does.
        """
        return [made.example for made in self.encoded(samples, said)]

    def encoded(self, samples: Sequence[Sample], said: Counter[str] | None = None) -> list[Encoded]:
        """As `whole`, with the text of the prompt that a model repeats when it generates."""
        said = Counter() if said is None else said
        if any(sample.messages for sample in samples):
            rendered = [self.conversation(sample.messages, sample.given) for sample in samples]
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
