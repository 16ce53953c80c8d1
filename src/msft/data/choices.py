"""Multiple choice in the forms that data sets use: with or without labels, the answer as index, label or text."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msft.config.columns import AnswerIs
from msft.data.arrow_values import ClassName

DERIVED = ("answer_text", "answer_letter", "choices_text")
"""Names that a template may use in addition to the columns, if rows have choices and an answer."""
OWN_LETTER = re.compile(r"\s*\(?(?P<letter>[A-Z])\s*[).:]\s*(?P<text>.*\S.*)", re.DOTALL)
AMBIGUOUS = (
    "the answer is ambiguous: as a position (from 0) or letter it is one choice, as a text another; say which it is: "
    "answer_is: position (or position_from_1, letter, text)"
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Choices in several columns, one in each."""

    columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    """The name that the answer uses for each of them, if configured."""
    answer: str
    """Column of the answer."""

    def choices_of(self, values: Mapping[str, Any], answer_is: AnswerIs | None) -> tuple[tuple[str, ...], int]:
        """The texts of a row's choices and the position of the correct one; `answer_is`: as for the function of this
        name. Raises ValueError.

        If the answer column is one of the choices, it holds the correct one (sciq). The correct one would always have
        the same position, which a model learns at once, so the choices are shuffled, in the same way for equal choices.
        """
        choices: Any = [values.get(column) for column in self.columns]
        if self.answer not in self.columns:
            labelled = choices if self.labels is None else {"text": choices, "label": self.labels}
            return choices_of(labelled, values.get(self.answer), answer_is)
        texts, right = _texts_of(choices), self.columns.index(self.answer)
        order = sorted(range(len(texts)), key=lambda position: _drawn(texts, position))
        return tuple(texts[position] for position in order), order.index(right)


def _drawn(texts: tuple[str, ...], position: int) -> tuple[bytes, int]:
    """A sort key that depends only on the texts, not on which of them is correct."""
    whole = "\0".join([texts[position], *sorted(texts)])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest(), position


def choices_of(choices: Any, answer: Any, answer_is: AnswerIs | None = None) -> tuple[tuple[str, ...], int]:
    """The texts of the choices and the position of the correct one. Raises ValueError, saying what is wrong.

    `choices`: a list of texts or numbers, or the hub's `{text: [...], label: [...]}`; if all begin with their own
    letters (`A)21`), the letters are removed. `answer`: a label, if there are labels, whether numbers or texts. Without
    labels: a position from 0 (as a number or as text), a letter from A, or a choice itself. An answer that can be read
    in two ways which differ is refused, unless `answer_is` says which is meant; labels need no `answer_is`.
    """
    labels: Any = None
    if isinstance(choices, Mapping):
        choices, labels = choices.get("text"), choices.get("label")
    texts = _texts_of(choices)
    if labels and answer_is is not None:
        raise ValueError("the choices have labels, and the answer is one of them: remove answer_is")
    if labels:
        return texts, _of_label(answer, labels, len(texts))
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError("the answer is missing, or neither a position nor text")
    return texts, _position(answer, choices, texts) if answer_is is None else _as(answer_is, answer, choices, texts)


def _texts_of(choices: Any) -> tuple[str, ...]:
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise ValueError("the choices are not a list")
    if not 2 <= len(choices) <= 26:
        raise ValueError(f"there are {len(choices)} choices, where 2 to 26 are needed")
    if not all(isinstance(choice, str | int | float) and str(choice).strip() for choice in choices):
        raise ValueError("a choice is empty or not text")
    return _without_letters(tuple(str(choice) for choice in choices))


def _without_letters(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts without their letters (`21` for `A)21`), if each begins with its own letter (aqua_rat)."""
    found = [OWN_LETTER.fullmatch(text) for text in texts]
    bare = tuple(match["text"] for match in found if match)
    letters = "".join(match["letter"] for match in found if match)
    return bare if letters == string.ascii_uppercase[: len(texts)] else texts


def _position(answer: Any, choices: Sequence[Any], texts: tuple[str, ...]) -> int:
    """Reads an answer without labels: as a position, as a letter and as a choice itself."""
    letters = string.ascii_uppercase[: len(texts)]
    named = isinstance(answer, ClassName)
    if isinstance(answer, ClassName) and answer.upper() in (
        str(answer.number), letters[answer.number : answer.number + 1]
    ):  # fmt: skip
        return _within(answer.number, len(texts))  # all classes are named by positions
    said = str(answer)
    found = _same_text(said, choices, texts)
    if isinstance(answer, str):
        found += [letters.index(said.strip())] if said.strip() in set(letters) else []
        # A class that is named by another number than its own may be counted from 1.
        found += [int(said)] if said.isdecimal() and int(said) < len(letters) and not named else []
    elif isinstance(answer, int) and 0 <= answer < len(letters):
        found.append(answer)
    if not found and isinstance(answer, int):
        return _within(answer, len(texts))
    if not found:
        raise ValueError("the answer is not a position (from 0), label or text of a choice")
    if len({texts[at] for at in found}) > 1:
        raise ValueError(AMBIGUOUS)
    return found[-1]


def _same_text(said: str, choices: Sequence[Any], texts: tuple[str, ...]) -> list[int]:
    return [at for at, choice in enumerate(choices) if said in (str(choice), texts[at])]


def _as(answer_is: AnswerIs, answer: str | int | float, choices: Sequence[Any], texts: tuple[str, ...]) -> int:
    """Reads an answer without labels as what the configuration says that it is."""
    said = str(answer).strip()
    if answer_is == "letter":
        letters = string.ascii_uppercase[: len(texts)]
        if said.upper() not in set(letters):
            raise ValueError(f"the answer is not a letter from A to {letters[-1]}, as answer_is says")
        return letters.index(said.upper())
    if answer_is == "text":
        found = _same_text(str(answer), choices, texts)
        if not found:
            raise ValueError("the answer is not the text of a choice, as answer_is says")
        return found[-1]
    number = re.fullmatch(r"(\d+)(\.0+)?", said)  # a column with gaps holds its integers as 2.0
    if number is None and not isinstance(answer, ClassName):
        raise ValueError("the answer is not a position, as answer_is says")
    first = 1 if answer_is == "position_from_1" else 0
    position = int(number[1]) if number else answer.number + first if isinstance(answer, ClassName) else -1
    return _within(position - first, len(texts), first)


def _within(position: int, count: int, first: int = 0) -> int:
    if not 0 <= position < count:
        more = "; if they are counted from 1: answer_is: position_from_1" if position == count and not first else ""
        found = f"the answer is {position + first}, but positions go from {first} to {count - 1 + first}"
        raise ValueError(found + more)
    return position


def _of_label(answer: Any, labels: Any, count: int) -> int:
    """The position of a label. Numbers are compared as texts: data sets write 1 here and "1" there."""
    if not isinstance(answer, str | int | float):
        raise ValueError("the answer is missing, or not the name of a label")
    if not isinstance(labels, Sequence) or isinstance(labels, str) or len(labels) != count:
        raise ValueError(f"the labels are not {count}, one for each choice")
    found = [position for position, label in enumerate(labels) if str(label) == str(answer).strip()]
    if len(found) != 1:
        raise ValueError("the answer is none of the labels" if not found else "the answer is the label of two choices")
    return found[0]


def without_doubles(texts: tuple[str, ...], answer: int, *, lettered: bool) -> tuple[tuple[str, ...], int]:
    """The choices without those that repeat the text of the correct one, and its new position: either is right.

    `lettered`: a letter is learned or scored, and the row may list the choices itself. Raises ValueError then.
    """
    right = texts[answer]
    if texts.count(right) == 1:
        return texts, answer
    if lettered:
        raise ValueError("two choices have the text of the correct one, so that two letters are right")
    first = texts.index(right)
    kept = tuple(text for at, text in enumerate(texts) if text != right or at == first)
    if len(kept) == 1:
        raise ValueError("all choices have the same text")
    return kept, kept.index(right)


def derived(texts: tuple[str, ...], answer: int) -> dict[str, str]:
    """The values of the derived names, with `answer` as the correct choice; `choices_text` ends with a line break."""
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(string.ascii_uppercase, texts, strict=False))
    return {"answer_text": texts[answer], "answer_letter": string.ascii_uppercase[answer], "choices_text": listed}
