"""Which tokens end a text that the model generates: those that its training examples end with (design 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msft.data.examples import Example


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The special tokens: those named as such, and those that the vocabulary marks (`added_tokens_decoder`)."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = (number for number, token in added.items() if token.special)
    return frozenset(map(int, (*tokenizer.all_special_ids, *marked)))


class EndRule:
    """The rule for one tokenizer: a special token ends a learned text if only blanks follow it there."""

    def __init__(self, tokenizer: Any) -> None:
        self.special = special_ids(tokenizer)
        self.eos = int(tokenizer.eos_token_id)
        self._tokenizer = tokenizer
        self._blank: dict[int, bool] = {}

    def place(self, ids: Sequence[int] | NDArray[np.int32]) -> int | None:
        """The index of the token that ends a learned text; None if no special token does."""
        for at in range(len(ids) - 1, -1, -1):
            token = int(ids[at])
            if token in self.special:
                return at
            if not self._is_blank(token):
                return None
        return None

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            text = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            self._blank[token] = not text.strip()
        return self._blank[token]


class TaskEnds:
    """The end tokens of one sub-dataset, found from the examples that `add` is called with.

    These are the end-of-sequence token and the tokens that end the examples; and those that end earlier turns, unless
    a learned text goes on after one of them (a channel of an answer ends with it, say).
    """

    def __init__(self, rule: EndRule) -> None:
        self._rule = rule
        self._last: set[int] = set()
        self._earlier: set[int] = set()
        self._inside: set[int] = set()

    def add(self, example: Example) -> None:
        """`example`: whole, because truncation may end it anywhere."""
        spans = list(learned_spans(example))
        for number, span in enumerate(spans, 1):
            place = self._rule.place(span)
            inner = span if place is None else span[:place]
            self._inside |= self._rule.special.intersection(inner.tolist())
            if place is not None:
                (self._last if number == len(spans) else self._earlier).add(int(span[place]))

    @property
    def found(self) -> tuple[int, ...]:
        """The end-of-sequence token, then the others in ascending order."""
        others = (self._last | (self._earlier - self._inside)) - {self._rule.eos}
        return (self._rule.eos, *sorted(others))

    @property
    def inside(self) -> frozenset[int]:
        """The special tokens within learned texts, after which these go on."""
        return frozenset(self._inside)


def learned_spans(example: Example) -> Iterator[NDArray[np.int32]]:
    """The tokens of each learned span."""
    edges = np.flatnonzero(np.diff(example.trained, prepend=False, append=False))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield example.ids[start:stop]
