"""Answers in free text: extracting them, and, separately, comparing two of them (the metric)."""

from __future__ import annotations

import re
import string
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from msft.core.errors import ConfigError, complaint
from msft.data.examples import Measure

_EXPONENT = r"(?:[eE][+-]?\d{1,3}(?!\w|\.\d))?"
_DIGITS = rf"(?:(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+){_EXPONENT}"
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)
OTHER_SIGNS = re.compile(r"(?P<minus>\u2212)|(?<=\d)(?:\{,\}|\\[,!]|,\\!)(?=\d{3}(?!\d))", re.ASCII)
"""A typographic minus sign, and the ways of LaTeX to separate thousands."""
NUMBER = re.compile(rf"(?:(?<![\w)])-)?\$?{_DIGITS}", re.ASCII)
"""A number in a text. A minus sign belongs to it only if there is nothing before the sign to subtract from."""
PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
DELIMITED = re.compile(r"(?<!\\)\$|\\[(\[]|\\boxed")
"""The beginning of an expression in LaTeX."""
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
"""A word, and no command of LaTeX."""
LETTERS = 10
"""Number of letters from A that may be the answer if the number of choices is not known."""
MATH_SECONDS = 5
"""Time limit for parsing one expression, or for comparing two."""


def found_in(text: str, measure: Measure, choices: int = 0) -> str | None:
    """The answer extracted from a text, or None if there is none. `choices`: their number, if it is known: as many
    letters may be the answer."""
    if measure.extract == "letter":
        return _letter(text, choices or LETTERS)
    return EXTRACTORS[measure.extract](text, measure)


def reference_of(completion: str, stated: str | None, measure: Measure, choices: int = 0) -> str:
    """The correct answer: extracted from the row's stated answer if it has one, else from its completion.

    Raises ValueError if there is none, because no generated text could match it.
    """
    sought = f"extract: {shown(measure)}"
    if measure.extract == "letter":
        sought += f" (A to {string.ascii_uppercase[(choices or LETTERS) - 1]})"
    if stated is None:
        found = found_in(until(completion, measure.stop), measure, choices)
        if found is None:
            before = " before the first stop sequence" if until(completion, measure.stop) != completion else ""
            raise ValueError(f"the completion has no answer that {sought} finds{before}")
        return found
    whole = stated.strip() if measure.extract in ("####", "regex") else ""
    stated = _delimited(stated) if measure.extract == "math" else stated
    found = found_in(stated, measure, choices) or whole
    if not found:
        raise ValueError(f"the answer is not one that {sought} finds")
    return found


def same(found: str | None, reference: str, measure: Measure) -> bool:
    """Whether an extracted answer equals the reference: numbers by value, all else character by character."""
    if found is None:
        return False
    if measure.extract == "math":
        return _same_math(found, reference)
    if measure.extract in ("text", "letter"):
        return found == reference
    values = _value(found), _value(reference)
    return values[0] == values[1] if None not in values else found == reference


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop sequences."""
    return text[: min([len(text), *(at for at in (text.find(stop) for stop in stops) if at >= 0)])]


def shown(measure: Measure) -> str:
    """The extractor as it is written in a configuration."""
    return f"{{regex: {measure.pattern}}}" if measure.extract == "regex" else measure.extract


def check_installed(measure: Measure, field: str) -> None:
    """Raises ConfigError if the extractor needs a library that is not installed."""
    if measure.extract == "math":
        try:
            import math_verify  # noqa: F401
        except ImportError:
            found = "extract: math needs the library math-verify, which is not installed"
            raise ConfigError(complaint(found, "run pip install 'msft[math]'", field=field)) from None


def _after_hashes(text: str, _: Measure) -> str | None:
    """The rest of the line after the first `####`; a model may continue with more questions below it."""
    return text.partition("####")[2].partition("\n")[0].strip() or None


def _by_pattern(text: str, measure: Measure) -> str | None:
    """The first group (if there is none, the whole) of the last match."""
    matches = list(re.finditer(measure.pattern, text))
    if not matches:
        return None
    return (matches[-1][1 if matches[-1].re.groups else 0] or "").strip() or None


@cache
def _letters(count: int) -> tuple[re.Pattern[str], ...]:
    """Patterns of an answer letter, one of the first `count`, the most reliable first: named as the answer, boxed in
    LaTeX, alone at the start, in brackets. "I think" is no letter: an I that is named needs more behind it than a
    word."""
    one = f"(?!I\\s+[a-z])([A-{string.ascii_uppercase[count - 1]}])"
    named = r"(?i:\banswer|\b(?:correct|right|best)\s+(?:option|choice))"
    between = r"[\s*]*(?i:(?:is|would\s+be)\b)?[\s*:]*(?i:(?:option|choice)\b)?[\s*(\[$]*"
    boxed = r"\\boxed\{(?:\\text\{)?\(?"
    return (
        re.compile(rf"{named}{between}(?:{boxed})?{one}\b(?!['’])"),
        re.compile(rf"{boxed}{one}\b"),
        re.compile(rf"^\W*{one}(?=\s*$|\s*\n|[.,:;)\]*])"),
        re.compile(rf"[(\[]{one}[)\]]"),
    )


def _letter(text: str, count: int) -> str | None:
    return next((match[1] for pattern in _letters(count) if (match := pattern.search(text))), None)


def _last_number(text: str, _: Measure) -> str | None:
    numbers = NUMBER.findall(_plain_signs(text))
    return numbers[-1] if numbers else None


def _plain_signs(text: str) -> str:
    return OTHER_SIGNS.sub(lambda match: "-" if match["minus"] else ",", text)


def _whole(text: str, _: Measure) -> str | None:
    return text.strip() or None


def _math(text: str, _: Measure) -> str | None:
    """The whole text, if an expression can be parsed from it; the metric parses it again."""
    return text.strip() if _parsed(text) else None


EXTRACTORS: Mapping[str, Callable[[str, Measure], str | None]] = {
    "####": _after_hashes,
    "regex": _by_pattern,
    "number": _last_number,
    "math": _math,
    "text": _whole,
}


def _value(text: str) -> Decimal | None:
    plain = THOUSANDS.sub("", _plain_signs(text)).replace("$", "").strip().rstrip(".")
    return Decimal(plain) if PLAIN.fullmatch(plain) else None


def _delimited(stated: str) -> str:
    r"""A stated answer as an expression: data sets write LaTeX without delimiters there, and the library would read
    `3\sqrt{5}` as 3. Between delimiters, in turn, it would read words as products of letters."""
    stated = stated.strip()
    if DELIMITED.search(stated) or (WORD.search(stated) and _parsed(stated)):
        return stated
    boxed = f"\\boxed{{{stated}}}"
    return boxed if _parsed(boxed) else stated


def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(text, parsing_timeout=_seconds()))


def _same_math(found: str, reference: str) -> bool:
    """An expression that cannot be compared in time counts as wrong."""
    from math_verify import verify

    return bool(verify(_parsed(reference), _parsed(found), timeout_seconds=_seconds()))


def _seconds() -> int | None:
    """The time limit; None outside the main thread, as the library sets a signal, which only the main thread can."""
    return MATH_SECONDS if threading.current_thread() is threading.main_thread() else None
