"""What a model answers to a few items, for people to read. No score depends on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from msft.core.vocabulary import Task
from msft.data.examples import Item, Measure
from msft.forward.runtime import Runtime, SequenceScores, sequence_scores
from msft.scoring.generation import Decoding, Request, generate

MOST_TOKENS = 96
"""Length of a generated text at most."""
LONGER = 2
"""A text whose whole completion has to match may be this many times as long as its reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item, and what a model answers to it."""

    prompt: str
    """As the model reads it, special tokens included."""
    reference: str
    """The completion that training would learn; of a choice, the right option; of a conversation, the first turn."""
    output: str
    """The generated text; of a choice, the most likely option."""
    probability: float | None
    """Of the most likely option among all options; None for a generated text."""


def sample_outputs(
    model: nn.Module,
    asked: Mapping[Task, tuple[Sequence[Item], Measure]],
    runtime: Runtime,
    decoding: Decoding,
    longest: int | None,
) -> dict[Task, list[Sample]]:
    """One sample per item, in order. Texts are decoded greedily and have at most `MOST_TOKENS` tokens.

    `longest`: tokens that a row may have, prompt included (None: no limit).
    """
    every = [(task, item, measure) for task, (items, measure) in asked.items() for item in items]
    choices = [(item, measure) for _, item, measure in every if measure.name == "choice"]
    chosen = iter(_chosen(model, choices, runtime, decoding))
    requests = [_request(task, item, m, decoding, longest) for task, item, m in every if m.name != "choice"]
    texts = iter(generate(model, requests, decoding.decoder, runtime)[0] if requests else [])
    found: dict[Task, list[Sample]] = {task: [] for task in asked}
    for task, item, measure in every:
        output, probability = next(chosen) if measure.name == "choice" else (next(texts), None)
        found[task].append(
            Sample(
                prompt=_text(decoding, item.prompt, special=True),
                reference=_text(decoding, _learned(item, item.answer)),
                output=output,
                probability=probability,
            )
        )
    return found


def _request(task: Task, item: Item, measure: Measure, decoding: Decoding, longest: int | None) -> Request:
    most = measure.max_new_tokens if measure.generates else MOST_TOKENS
    if measure.name == "exact_match":
        most = LONGER * len(_learned(item))
    room = most if longest is None else longest - len(item.prompt)
    return Request(
        prompt=item.prompt,
        ends=decoding.eos | decoding.taught.get(task, frozenset()),
        stop=measure.stop,
        max_new_tokens=max(1, min(most, MOST_TOKENS, room)),
        repeated=item.repeated,
    )


def _chosen(
    model: nn.Module, items: Sequence[tuple[Item, Measure]], runtime: Runtime, decoding: Decoding
) -> list[tuple[str, float]]:
    """The most likely option of each item, and its probability among the options."""
    if not items:
        return []
    scores = sequence_scores(model, [item.options for item, _ in items], runtime)
    found, first = [], 0
    for item, measure in items:
        last = first + len(item.options)
        values = _likelihoods(item, measure, scores.part(first, last))
        weights = np.exp(values - values.max())
        best, first = int(values.argmax()), last
        found.append((_text(decoding, _learned(item, best)), float(weights[best] / weights.sum())))
    return found


def _likelihoods(item: Item, measure: Measure, scores: SequenceScores) -> NDArray[np.float64]:
    """[options] normalised as the measure says."""
    length = np.ones(len(item.options))
    if measure.normalize == "token":
        length = scores.targets.astype(np.float64)
    elif measure.normalize == "byte":
        length = np.maximum(np.array(item.option_bytes, np.float64), 1.0)
    return -scores.nll / length


def _learned(item: Item, option: int = 0) -> Sequence[int]:
    """The first run of trained tokens."""
    example = item.options[option]
    start = int(np.argmax(example.trained))
    others = np.flatnonzero(~example.trained[start:])
    stop = start + int(others[0]) if len(others) else len(example)
    return [int(token) for token in example.ids[start:stop]]


def _text(decoding: Decoding, tokens: Iterable[int], *, special: bool = False) -> str:
    decode = decoding.decoder.decode
    return decode([int(t) for t in tokens], skip_special_tokens=not special, clean_up_tokenization_spaces=False)
