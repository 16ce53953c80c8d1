"""Similarity of two texts: the share of their shingles that they have in common (Jaccard)."""

from __future__ import annotations

import re
import unicodedata
import zlib

import numpy as np
from numpy.typing import NDArray

WORDS = 5
"""Number of words (and punctuation marks) in a shingle."""
CHARACTERS = 5
"""Number of characters in a shingle of a short text, in which one different word would change all word shingles."""
SHORT = 20
"""Number of words below which a text is short."""
NEAR = 0.8
"""Jaccard similarity from which on two texts are near duplicates."""

_TOKEN = re.compile(r"[\w']+|[^\w\s]")
_DECISIVE = re.compile(r"\d+|[+*/=<>^%×÷−]|(?<=[\s\d])-(?=[\s\d])|(?<![\w'])[b-z](?![\w'])")

Shingles = NDArray[np.uint32]
"""The hashes of a text's shingles, sorted, each once."""


def normalised(text: str) -> str:
    """The text with normalised case, spacing and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> Shingles:
    """The shingles of a normalised text."""
    tokens = _TOKEN.findall(text)
    if len(tokens) < SHORT:
        pieces = [text[at : at + CHARACTERS] for at in range(max(1, len(text) - CHARACTERS + 1))]
    else:
        pieces = [" ".join(tokens[at : at + WORDS]) for at in range(len(tokens) - WORDS + 1)]
    return np.unique(np.fromiter((zlib.crc32(piece.encode()) for piece in pieces), np.uint32, len(pieces)))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles over all shingles of both; 0 where there are none."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - common
    return common / union if union else 0.0


def near(one: str, other: str) -> bool:
    """Whether two texts ask the same thing in nearly the same words.

    Texts with the same number of lines are compared line by line, because two questions about one passage are different
    questions. Texts in which a number, an operator or a single letter differs are never near: "3 + 4" is not "3 + 5",
    however long the rest.
    """
    if _decisive(one) != _decisive(other):
        return False
    lines = [[line for line in text.splitlines() if line.strip()] for text in (one, other)]
    pairs = list(zip(*lines, strict=True)) if len(lines[0]) == len(lines[1]) else [(one, other)]
    return all(
        a == b or jaccard(shingles(a), shingles(b)) >= NEAR
        for a, b in ((normalised(a), normalised(b)) for a, b in pairs)
    )


def _decisive(text: str) -> list[str]:
    return _DECISIVE.findall(normalised(text))
