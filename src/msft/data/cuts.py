"""What truncation to `data.max_length` leaves out of the examples of a split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msft.core.plain_words import many
from msft.data.encode import cut
from msft.data.examples import Example

KEY = "(data.max_length)"
"""Stands in a note for the setting, and, once the model is known, for how much more the model takes."""


@dataclass(slots=True)
class Cuts:
    """Truncates examples, and counts what is left out of those that stay."""

    max_length: int
    examples: int = 0
    shortened: int = 0
    tokens: int = 0
    """Of the whole examples."""
    left_out: int = 0
    """Of these tokens."""

    def cut(self, whole: Example) -> Example | None:
        """The example truncated, or None if this leaves no learned token."""
        made = cut(whole, self.max_length)
        if made is not None:
            self.examples += 1
            self.shortened += len(made) < len(whole)
            self.tokens += len(whole)
            self.left_out += len(whole) - len(made)
        return made

    def notes(self, kind: str) -> list[str]:
        """What people should know. `kind`: the split."""
        if not self.shortened:
            return []
        were = "was" if self.shortened == 1 else "were"
        share = f"{self.left_out / self.tokens:.0%}" if self.left_out >= 0.01 * self.tokens else "less than 1%"
        return [
            f"{self.shortened} of {many(self.examples, f'{kind} example')} {were} truncated to {self.max_length} "
            f"tokens {KEY}: {share} of the {kind} tokens are left out"
        ]


def with_positions(notes: Iterable[str], positions: int) -> tuple[str, ...]:
    """The notes with the most tokens that the model takes, which are more than `data.max_length`.

    The notes of cached data do not have them, so that commands that do not know the model use the same entry.
    """
    return tuple(note.replace(KEY, f"{KEY[:-1]}; the model takes {positions:,})") for note in notes)
