"""Few-shot prompts: the same training examples before every item of a sub-dataset (design 3.11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msft.config.scorer import ShotsConfig
from msft.core.errors import DataError, complaint
from msft.core.plain_words import many
from msft.core.vocabulary import Task
from msft.data.conversations import OPENERS
from msft.data.formats import Sample
from msft.data.streams import raw_bits

BETWEEN = "\n\n"


def draw(train: Sequence[Sample], shots: ShotsConfig, task: Task) -> list[Sample]:
    """`shots.k` training examples, drawn with `shots.seed`; the first of them are those of a smaller k.

    Raises DataError if there are fewer training examples.
    """
    if shots.k > len(train):
        found = f"found {shots.k}, to be drawn from {many(len(train), 'training example')}"
        raise DataError(complaint(found, "lower k", field=f"datasets.{task}.scorer.shots.k"))
    order = np.argsort(raw_bits(len(train), shots.seed, task, "shots"), kind="stable")
    return [train[int(position)] for position in order[: shots.k]]


def after(shots: Sequence[Sample], sample: Sample) -> Sample:
    """The sample with the shots in its prompt: joined by blank lines, or as earlier turns of its conversation."""
    if not shots:
        return sample
    if not sample.messages:
        texts = [(shot.prompt + shot.completion).rstrip() for shot in shots]
        return replace(sample, prompt=BETWEEN.join([*texts, sample.prompt]))
    # Only the first turns of a conversation may be the system's.
    system = [turn for turn in sample.messages if turn["role"] in OPENERS]
    earlier = [turn for shot in shots for turn in shot.messages if turn["role"] not in OPENERS]
    own = [turn for turn in sample.messages if turn["role"] not in OPENERS]
    given = max(len(system), sample.given) + len(earlier)
    return replace(sample, messages=(*system, *earlier, *own), given=given)
