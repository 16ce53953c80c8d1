"""Multiple choice in the forms that data sets use: with or without labels, the answer as index, label or text."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DERIVED = ("answer_text", "answer_letter", "choices_text")
"""Names that a template may use in addition to the columns, if rows have choices and an answer."""
OWN_LETTER = re.compile(r"\s*\(?(?P<letter>[A-Z])\s*[).:]\s*(?P<text>.*\S.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Spread:
    """Choices in several columns, one in each."""

    columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    """The name that the answer uses for each of them, if configured."""
    answer: str
    """Column of the answer."""

    def choices_of(self, values: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
        """The texts of a row's choices and the position of the correct one. Raises ValueError.

        If the answer column is one of the choices, it holds the correct one (sciq). The correct one would always have
        the same position, which a model learns at once, so the choices are shuffled, in the same way for equal choices.
        """
        choices: Any = [values.get(column) for column in self.columns]
        if self.answer not in self.columns:
            answer = values.get(self.answer)
            if self.labels is None:
                return choices_of(choices, answer)
            if isinstance(answer, int) and not isinstance(answer, bool):
                answer = str(answer)
            return choices_of({"text": choices, "label": self.labels}, answer)
        texts, right = choices_of(choices, self.columns.index(self.answer))
        order = sorted(range(len(texts)), key=lambda position: _drawn(texts, position))
        return tuple(texts[position] for position in order), order.index(right)


def _drawn(texts: tuple[str, ...], position: int) -> tuple[bytes, int]:
    """A sort key that depends only on the texts, not on which of them is correct."""
    whole = "\0".join([texts[position], *sorted(texts)])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest(), position


def choices_of(choices: Any, answer: Any) -> tuple[tuple[str, ...], int]:
    """The texts of the choices and the position of the correct one. Raises ValueError, saying what is wrong.

    `choices`: a list of texts or numbers, or the hub's `{text: [...], label: [...]}`; if all begin with their own
    letters (`A)21`), the letters are removed. `answer`: a position from 0 (as a number or as text), a label (or a
    letter from A, if there are no labels), or the text of a choice.
    """
    labels: Any = None
    if isinstance(choices, Mapping):
        choices, labels = choices.get("text"), choices.get("label")
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise ValueError("the choices are not a list")
    if not 2 <= len(choices) <= 26:
        raise ValueError(f"there are {len(choices)} choices, where 2 to 26 are needed")
    if not all(isinstance(choice, str | int | float) and str(choice).strip() for choice in choices):
        raise ValueError("a choice is empty or not text")
    texts = tuple(str(choice) for choice in choices)
    return _without_letters(texts), _position(answer, texts, labels)


def _without_letters(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts without their letters (`21` for `A)21`), if each begins with its own letter (aqua_rat)."""
    found = [OWN_LETTER.fullmatch(text) for text in texts]
    bare = tuple(match["text"] for match in found if match)
    letters = "".join(match["letter"] for match in found if match)
    return bare if letters == string.ascii_uppercase[: len(texts)] else texts


def _position(answer: Any, texts: tuple[str, ...], labels: Any) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(texts):
            raise ValueError(f"the answer is {answer}, but positions go from 0 to {len(texts) - 1}")
        return answer
    if not isinstance(answer, str):
        raise ValueError("the answer is missing, or neither a position nor text")
    names = [str(label) for label in labels] if labels else list(string.ascii_uppercase[: len(texts)])
    named = [position for position, name in enumerate(names) if name == answer.strip()]
    # Labels are unambiguous; without them, a letter may also be the text of another choice.
    found = named if labels else sorted({*named, *(n for n, text in enumerate(texts) if text == answer)})
    if not found and not labels and answer.isdecimal() and int(answer) < len(texts):
        return int(answer)  # a position, stored as text
    if len(found) != 1:
        raise ValueError(
            "the answer is not a position (from 0), label or text of a choice"
            if not found
            else "the answer is ambiguous"
        )
    return found[0]


def derived(texts: tuple[str, ...], answer: int) -> dict[str, str]:
    """The values of the derived names, with `answer` as the correct choice; `choices_text` ends with a line break."""
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(string.ascii_uppercase, texts, strict=False))
    return {"answer_text": texts[answer], "answer_letter": string.ascii_uppercase[answer], "choices_text": listed}
