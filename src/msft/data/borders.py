"""Tokenises the pieces of a text as one text, and finds which of its tokens are learned (design 3.4)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pieces: TypeAlias = Sequence[tuple[str, bool]]
"""The texts of an example in order, each with whether it is learned. Together they are the example's whole text."""

BATCH = 1000
"""Number of texts passed to the tokenizer at once."""
TRIMMED, WHOLE = b'"trim_offsets":true', b'"trim_offsets":false'


class Tokens(NamedTuple):
    """A text as tokens."""

    ids: list[int]
    """The tokens of the whole text, as the tokenizer makes them, without any that it adds."""
    learned: NDArray[np.bool_]
    """[tokens] whether a token holds text of a learned piece."""
    straddling: int
    """Number of borders of learned pieces that lie within a token. Such a token is learned."""
    repeated: str
    """The end of the text before the first learned piece, as far as the first learned token holds it too."""


class Border(NamedTuple):
    """Where a border between two pieces lies among the tokens."""

    low: int
    """The first token that holds text after the border."""
    high: int
    """The first token that holds no text before the border: more than `low` if a token straddles it."""
    repeated: str
    """The text before the border that the straddling token holds."""


class PieceTokenizer:
    """A tokenizer for texts in pieces: its tokens are those of the whole text.

    A tokenizer with offsets (a fast one) tells which characters a token holds. Without them, a border lies where the
    tokens of the text before it and those of the whole text begin to differ.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = _with_whole_offsets(tokenizer)
        self._added: dict[int, str] = {
            int(number): str(token.content) for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        }

    def __call__(self, examples: Sequence[Pieces]) -> Iterator[Tokens]:
        """The tokens of each example, in order."""
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            made = self._made(["".join(text for text, _ in pieces) for pieces in batch])
            encodings = getattr(made, "encodings", None) or [None] * len(batch)
            for pieces, ids, encoding in zip(batch, made["input_ids"], encodings, strict=True):
                yield self._tokens(pieces, list(ids), encoding)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without those that the tokenizer adds."""
        return list(self._made([text])["input_ids"][0])

    def _made(self, texts: list[str]) -> Any:
        return self._tokenizer(texts, add_special_tokens=False, verbose=False)

    def _tokens(self, pieces: Pieces, ids: list[int], encoding: Any) -> Tokens:
        text = "".join(piece for piece, _ in pieces)
        learned = np.zeros(len(ids), np.bool_)
        straddling, repeated = 0, None
        for start, stop in _learned_runs(pieces):
            first, last = (self._border(text, at, ids, encoding) for at in (start, stop))
            learned[first.low : last.high] = True
            straddling += (first.low < first.high) + (last.low < last.high)
            repeated = first.repeated if repeated is None else repeated
        return Tokens(ids, learned, straddling, repeated or "")

    def _border(self, text: str, at: int, ids: list[int], encoding: Any) -> Border:
        if at in (0, len(text)):
            edge = 0 if at == 0 else len(ids)
            return Border(edge, edge, "")
        if encoding is None:
            return self._by_common_beginning(text, at, ids)
        low, high = _by_offsets(text, at, encoding, len(ids))
        if low == high:
            return Border(low, low, "")
        start, end = encoding.token_to_chars(low)
        if high > low + 1:
            # Offsets of bytes are those of all unknown characters in a row: ask where the text before ends.
            before = self.ids(text[:at])
            if low < len(before) <= high and before == ids[: len(before)]:
                return Border(len(before), len(before), "")
        elif content := self._added.get(ids[low]):
            # An added token may take the blanks beside it along, but it holds no more than its own text.
            found = text.find(content, start, end)
            if found >= at or 0 <= found <= at - len(content):
                return Border(low, low, "") if found >= at else Border(high, high, "")
        return Border(low, high, text[start:at])

    def _by_common_beginning(self, text: str, at: int, ids: list[int]) -> Border:
        before = self.ids(text[:at])
        pairs = enumerate(zip(before, ids, strict=False))
        low = next((n for n, (one, other) in pairs if one != other), min(len(before), len(ids)))
        if low == len(before):
            return Border(low, low, "")
        repeated = self._tokenizer.decode(before[low:], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Border(low, min(low + 1, len(ids)), str(repeated))


def _by_offsets(text: str, at: int, encoding: Any, count: int) -> tuple[int, int]:
    """`low` and `high` of the border before character `at`, which is neither the first nor the end."""
    low = encoding.char_to_token(at)
    if low is not None:
        high = low
        while high < count and encoding.token_to_chars(high)[0] < at:
            high += 1
        return low, high
    # No token holds this character. If it is no blank, it was composed with the one before it (an accent).
    after = (encoding.char_to_token(later) for later in range(at + 1, len(text)))
    high = next((found for found in after if found is not None), count)
    before = None if text[at].isspace() else encoding.char_to_token(at - 1)
    return (high if before is None else before), high


def _learned_runs(pieces: Pieces) -> list[tuple[int, int]]:
    """The characters of the learned pieces, (first, end); neighbours are one run, and empty ones are none."""
    runs: list[tuple[int, int]] = []
    at = 0
    for text, learned in pieces:
        end = at + len(text)
        if learned and text:
            joined = bool(runs) and runs[-1][1] == at
            runs[-1:] = [(runs[-1][0], end)] if joined else [*runs[-1:], (at, end)]
        at = end
    return runs


def _with_whole_offsets(tokenizer: Any) -> Any:
    """The tokenizer, or a copy of it whose tokens' offsets include the blanks that its post-processor leaves out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    processor = getattr(backend, "post_processor", None)
    state = processor.__getstate__() if processor is not None else b""
    if TRIMMED not in state:
        return tokenizer
    made = copy.deepcopy(tokenizer)
    whole = made.backend_tokenizer.post_processor
    whole.__setstate__(state.replace(TRIMMED, WHOLE))
    made.backend_tokenizer.post_processor = whole
    return made
