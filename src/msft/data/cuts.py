"""What truncation to `data.max_length` leaves out of the examples of a split."""

from __future__ import annotations

from dataclasses import dataclass

from msft.core.plain_words import many
from msft.data.encode import cut
from msft.data.examples import Example


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

    def notes(self, kind: str, positions: int | None) -> list[str]:
        """What people should know. `kind`: the split; `positions`: the most tokens that the model takes."""
        if not self.shortened:
            return []
        were = "was" if self.shortened == 1 else "were"
        more = f"; the model takes {positions:,}" if positions is not None and positions > self.max_length else ""
        share = f"{self.left_out / self.tokens:.0%}" if self.left_out >= 0.01 * self.tokens else "less than 1%"
        return [
            f"{self.shortened} of {many(self.examples, f'{kind} example')} {were} truncated to {self.max_length} "
            f"tokens (data.max_length{more}): {share} of the {kind} tokens are left out"
        ]
