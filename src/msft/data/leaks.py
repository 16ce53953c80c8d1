"""Finds training examples that are also, exactly or nearly, in a validation or test split of any sub-dataset, and test
examples that are also in a validation split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msft.core.vocabulary import Task
from msft.data.formats import Sample
from msft.data.samples import Samples
from msft.data.shingles import NEAR, Shingles, jaccard, near, normalised, shingles

PERMUTATIONS = 128
"""Number of hash functions of a MinHash."""
LOOSE = 0.7
"""Threshold of the MinHash index, below `NEAR`: it finds nearly all texts that are more similar than `NEAR`."""
SPECIMENS = 1000
"""Number of training examples of a sub-dataset from which its boilerplate is determined."""
BOILERPLATE = 0.05
"""A shingle that more than this share of a sub-dataset's examples have (and more than `FEW`) is boilerplate."""
FEW = 3
LEAST_SPECIFIC = 3
"""Minimum number of shingles without boilerplate with which a text is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The splits of one sub-dataset."""

    train: Samples
    held: Mapping[str, Samples]
    """`validation` and `test`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A training or test example and the held-out example that it repeats."""

    index: int
    """Index of the first one within its split."""
    place: str
    held: str
    """Places: `file:line`, or `file row number`."""
    split: str
    """Sub-dataset and split of the held-out example."""
    exact: bool

    def __str__(self) -> str:
        return f"{self.place} {'is' if self.exact else 'is nearly'} {self.held} ({self.split})"


def find_leaks(parts: Mapping[Task, Part]) -> dict[Task, list[Leak]]:
    """The leaks of each sub-dataset's training examples, in their order."""
    habits = {task: _Habits.of(part) for task, part in parts.items()}
    index = _HeldOut(parts, habits)
    return {task: list(index.leaks(part.train, habits[task])) for task, part in parts.items()}


def find_repeated_tests(parts: Mapping[Task, Part]) -> dict[Task, list[Leak]]:
    """The test examples of each sub-dataset that are, exactly, validation examples of any, in their order."""
    if not any(len(part.held["test"]) for part in parts.values()):
        return {}
    habits = {task: _Habits.of(part, near=False) for task, part in parts.items()}
    known: dict[bytes, tuple[str, str]] = {}
    for task, part in parts.items():
        for sample in part.held["validation"]:
            known.setdefault(habits[task].digest(sample), (sample.row.place, f"{task}, validation"))
    found: dict[Task, list[Leak]] = {}
    for task, part in parts.items():
        for index, sample in enumerate(part.held["test"]):
            held = known.get(habits[task].digest(sample))
            if held is not None:
                leak = Leak(index=index, place=sample.row.place, held=held[0], split=held[1], exact=True)
                found.setdefault(task, []).append(leak)
    return found


@dataclass(frozen=True, slots=True)
class _Habits:
    """Texts that many examples of one sub-dataset share, and that therefore identify none of them."""

    instructions: frozenset[str]
    """Prompts that many examples have."""
    boilerplate: Shingles

    @classmethod
    def of(cls, part: Part, *, near: bool = True) -> _Habits:
        """`near`: also the boilerplate, by which only near repeats are told apart."""
        # An aggregate has no training examples: its items show their habits themselves.
        train = part.train if len(part.train) else part.held.get("validation", part.train)
        chosen = np.unique(np.linspace(0, len(train) - 1, min(len(train), SPECIMENS)).astype(np.int64))
        texts = [normalised(sample.question) for sample in train.subset(chosen)]
        often = max(FEW, BOILERPLATE * len(texts))
        prompts = frozenset(text for text, count in Counter(texts).items() if count > often)
        sets = [shingles(text) for text in {*texts}] if near else []
        each, counts = np.unique(_joined(sets), return_counts=True)
        return cls(prompts, each[counts > often])

    def text(self, sample: Sample) -> str:
        """The text that identifies a sample: its question, plus its answer if the question is a common instruction."""
        question = sample.question
        if normalised(question) not in self.instructions:
            return question
        answer = sample.messages[-1]["content"] if sample.messages else sample.completion
        return f"{question}\n{answer}"

    def digest(self, sample: Sample) -> bytes:
        return _digest(self.text(sample))


@dataclass(slots=True)
class _HeldOut:
    """All validation and test examples, indexed by text."""

    parts: Mapping[Task, Part]
    habits: Mapping[Task, _Habits]
    places: list[tuple[str, str]] = field(default_factory=list)
    """Place and split of each example."""
    texts: list[str] = field(default_factory=list)
    sets: list[Shingles] = field(default_factory=list)
    """Shingles of each text without boilerplate; empty if too few are left."""
    exact: dict[bytes, int] = field(default_factory=dict)
    known: Shingles = field(init=False)
    """Every shingle of `sets`."""
    boilerplate: Shingles = field(init=False)
    _lsh: Any = None

    def __post_init__(self) -> None:
        self.boilerplate = np.unique(_joined([habits.boilerplate for habits in self.habits.values()]))
        for task, part in self.parts.items():
            for split, samples in part.held.items():
                for sample in samples:
                    text = self.habits[task].text(sample)
                    self.exact.setdefault(_digest(text), len(self.texts))
                    self.places.append((sample.row.place, f"{task}, {split}"))
                    self.texts.append(text)
                    self.sets.append(self._specific(text))
        self.known = np.unique(_joined(self.sets))

    def leaks(self, train: Samples, habits: _Habits) -> Iterator[Leak]:
        for number, sample in enumerate(train):
            text = habits.text(sample)
            found = self.exact.get(_digest(text))
            exact = found is not None
            if found is None:
                found = self._near(text)
            if found is not None:
                held, split = self.places[found]
                yield Leak(index=number, place=sample.row.place, held=held, split=split, exact=exact)

    def _near(self, text: str) -> int | None:
        """The number of the first held-out text of which this one is a near duplicate, or None."""
        own = self._specific(text)
        # If two sets have a Jaccard similarity of j, each shares at least the fraction j of its elements.
        if not len(own) or not len(self.known) or _among(own, self.known).mean() < NEAR:
            return None
        for candidate in sorted(self._index().query(_min_hash(own))):
            if jaccard(own, self.sets[candidate]) >= NEAR and near(text, self.texts[candidate]):
                return int(candidate)
        return None

    def _index(self) -> Any:
        """The MinHash index of the held-out texts, made at the first call."""
        if self._lsh is None:
            from datasketch import MinHashLSH

            self._lsh = MinHashLSH(threshold=LOOSE, num_perm=PERMUTATIONS)
            for number, own in enumerate(self.sets):
                if len(own):
                    self._lsh.insert(number, _min_hash(own))
        return self._lsh

    def _specific(self, text: str) -> Shingles:
        own = shingles(normalised(text))
        own = own[~_among(own, self.boilerplate)]
        return own if len(own) >= LEAST_SPECIFIC else own[:0]


def _among(some: Shingles, known: Shingles) -> NDArray[np.bool_]:
    """[some] whether each element is in the sorted `known`."""
    if not len(known):
        return np.zeros(len(some), np.bool_)
    return np.equal(known[np.minimum(np.searchsorted(known, some), len(known) - 1)], some)


def _joined(sets: list[Shingles]) -> Shingles:
    return np.concatenate(sets) if sets else np.empty(0, np.uint32)


@cache
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)  # shingles are hashes already


def _min_hash(own: Shingles) -> Any:
    made = _empty().copy()  # drawing the permutations takes longer than hashing a text
    made.update_batch(own)
    return made


def _digest(text: str) -> bytes:
    """Equal for texts that are equal but for case and white space."""
    return hashlib.blake2b(normalised(text).encode(), digest_size=16).digest()
