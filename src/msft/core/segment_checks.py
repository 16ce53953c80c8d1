"""What is wrong with a segment in itself, whatever came before it: `Search` refuses it before it is run."""

from __future__ import annotations

import math
from typing import NamedTuple

from msft.core.vocabulary import Mixture, Segment


class Wrong(NamedTuple):
    """What was found, and how to fix it."""

    found: str
    fix: str


def wrong_with(segment: Segment) -> Wrong | None:
    """The first thing that is wrong; None if the segment can be run."""
    return _of_mixture(segment.mixture)


def _of_mixture(mixture: Mixture) -> Wrong | None:
    if strange := sorted(mixture.replayed - set(mixture.tasks)):
        return Wrong(
            f"the method replays {strange[0]}, which is not in the mixture",
            "name it in `tasks` too, with the share to replay, or leave it out of `replayed`",
        )
    for weight in mixture.loss_weights or ():
        if not (math.isfinite(weight) and weight >= 0):
            return Wrong(f"the method weighs a loss by {weight}", "give weights of 0 or more, and finite ones")
    if mixture.loss_weights and not any(mixture.loss_weights):
        return Wrong("the method weighs every loss by 0, so that nothing is learned", "give one a weight above 0")
    return None
