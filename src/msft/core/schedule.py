"""The learning rate over a run (design 3.12)."""

from __future__ import annotations

import math


def learning_rate(rate: float, schedule: str, warmup: float, max_epochs: float, position: float) -> float:
    """That of a step that begins at `position` (epochs, discarded training not included).

    `schedule`: constant, linear or cosine. `warmup`: share of `max_epochs` over which the rate rises from 0. Constant
    where `max_epochs` is infinite, as there is no end to decay towards and no share to warm up over.
    """
    if math.isinf(max_epochs):
        return rate
    rising = warmup * max_epochs
    if position < rising:
        return rate * position / rising
    done = min(1.0, (position - rising) / (max_epochs - rising)) if max_epochs > rising else 1.0
    if schedule == "linear":
        return rate * (1 - done)
    if schedule == "cosine":
        return rate * (1 + math.cos(math.pi * done)) / 2
    return rate
