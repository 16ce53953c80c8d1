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
    """The rule for one tokenizer: what is learned ends with the special tokens that nothing but blanks follows."""

    def __init__(self, tokenizer: Any) -> None:
        self.special = special_ids(tokenizer)
        self.eos = int(tokenizer.eos_token_id)
        self._tokenizer = tokenizer
        self._blank: dict[int, bool] = {}

    def ending(self, ids: Sequence[int] | NDArray[np.int32]) -> tuple[int, ...]:
        """The special tokens that end a learned text, in order; none if it ends with another token."""
        found: list[int] = []
        for token in map(int, ids[::-1]):
            if token in self.special:
                found.append(token)
            elif not self._is_blank(token):
                break
        return tuple(reversed(found))

    def text(self, token: int) -> str:
        """The text of a token."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not self.text(token).strip()
        return self._blank[token]


class TaskEnds:
    """The end tokens of one sub-dataset, found from the examples that `add` is called with.

    A text ends with the first of the special tokens at its end, unless other learned texts go on after that token (a
    channel of an answer ends with it, say); then with the last one. What ends earlier turns only, and is also found
    within learned texts, ends nothing.
    """

    def __init__(self, rule: EndRule) -> None:
        self._rule = rule
        self._last: set[tuple[int, ...]] = set()
        self._earlier: set[tuple[int, ...]] = set()
        self._inside: set[int] = set()

    def add(self, example: Example) -> None:
        """`example`: whole, because truncation may end it anywhere."""
        spans = list(learned_spans(example))
        for number, span in enumerate(spans, 1):
            ending = self._rule.ending(span)
            special = [token for token in span.tolist() if token in self._rule.special]
            self._inside.update(special[: len(special) - len(ending)])
            (self._last if number == len(spans) else self._earlier).add(ending)

    @property
    def found(self) -> tuple[int, ...]:
        """The end-of-sequence token, then the others in ascending order."""
        firsts = (next((t for t in ending if t not in self._inside), None) for ending in self._last | self._earlier)
        ends = {first for first in firsts if first is not None}
        # A last turn must end somewhere.
        ends |= {ending[-1] for ending in self._last if ending and not ends.intersection(ending)}
        return (self._rule.eos, *sorted(ends - {self._rule.eos}))

    @property
    def inside(self) -> frozenset[int]:
        """The special tokens within learned texts, after which these go on."""
        return frozenset(self._inside)


def learned_spans(example: Example) -> Iterator[NDArray[np.int32]]:
    """The tokens of each learned span."""
    edges = np.flatnonzero(np.diff(example.trained, prepend=False, append=False))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield example.ids[start:stop]
