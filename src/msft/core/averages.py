"""The arithmetic of averaged weights: how much each optimizer step counts, and how old the average is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

WarmUp: TypeAlias = Literal["none", "debiased", "ramp"]
"""How much the first steps count: each as any other, so that the base model fades with the window; as if the average
had no beginning (the base model does not count); or a decay of at most (1 + t) / (10 + t) at step t."""


@dataclass(frozen=True, slots=True)
class Averaging:
    """An exponential moving average over about the last `window` optimizer steps, at least 1."""

    window: float
    warm_up: WarmUp = "none"

    def share(self, step: int) -> float:
        """The weight with which the model after optimizer step `step` (from 1) enters the mean."""
        plain = 1 / max(1.0, self.window)
        if self.warm_up == "debiased":
            return float(plain / (1 - (1 - plain) ** step))
        if self.warm_up == "ramp":
            return max(plain, 1 - (1 + step) / (10 + step))
        return plain

    def age(self, steps: int) -> float:
        """The mean age, in steps, of the weights that the mean after `steps` steps is made of, the base model's
        included."""
        age = 0.0
        for step in range(1, steps + 1):
            age = (1 - self.share(step)) * (age + 1)
        return age
