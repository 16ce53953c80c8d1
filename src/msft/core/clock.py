"""Steps, epochs and ticks: the only place that converts between them (design 3.1, 3.2).

An epoch of a mixture holds `instances` instances and takes `steps_per_epoch = ceil(instances / batch_size)` optimizer
steps. Ticks are the distinct steps ceil(k * eval_every * steps_per_epoch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from msft.core.vocabulary import Brief, Mixture, Segment, Task


def exact(number: float) -> Fraction:
    """The decimal number that was meant: 0.1 is one tenth, so that 0.1 * 30 instances are 3 and never 4."""
    return Fraction(repr(number))


def per_epoch(mixture: Mixture, sizes: Mapping[Task, int]) -> dict[Task, int]:
    """Instances that one epoch takes of each sub-dataset; at least one of each that has any left.

    With weights these are the pool sizes: an epoch draws as many instances as there are, from anywhere.
    """
    left_out: dict[Task, int] = dict.fromkeys(mixture.tasks, 0)
    for task, _ in mixture.without:
        if task in left_out:
            left_out[task] += 1
    whole = {task: sizes[task] - left_out[task] for task in mixture.tasks}
    if mixture.shares is None:
        return whole
    shares = zip(mixture.tasks, mixture.shares, strict=True)
    # Exact arithmetic is slow, and most shares are 1.
    return {task: whole[task] if share == 1 else math.ceil(exact(share) * whole[task]) for task, share in shares}


class Clock:
    """Converts for one job: its sizes, its batch size, its rhythm of ticks."""

    def __init__(self, sizes: Mapping[Task, int], batch_size: int, eval_every: float) -> None:
        self.sizes = dict(sizes)
        self.batch_size = batch_size
        self.eval_every = exact(eval_every)

    @classmethod
    def of(cls, brief: Brief) -> Clock:
        return cls(dict(zip(brief.tasks, brief.sizes, strict=True)), brief.batch_size, brief.eval_every)

    def instances(self, mixture: Mixture) -> int:
        """Instances in an epoch of the mixture."""
        return sum(per_epoch(mixture, self.sizes).values())

    def steps_per_epoch(self, mixture: Mixture) -> int:
        return -(-self.instances(mixture) // self.batch_size)

    def steps(self, mixture: Mixture, epochs: float) -> int:
        """Optimizer steps in so many epochs, at least one; a float's rounding error never adds a step."""
        steps = math.ceil(Fraction(epochs) * self.steps_per_epoch(mixture) - Fraction(1, 10**6))
        return max(1, steps)

    def epochs(self, mixture: Mixture, steps: int) -> float:
        return steps / self.steps_per_epoch(mixture)

    def ticks(self, mixture: Mixture, steps: int) -> list[int]:
        """The ticks of the next `steps` steps: the distinct ceil(k * eval_every * steps_per_epoch), and the end."""
        period = self.eval_every * self.steps_per_epoch(mixture)
        marks = {math.ceil(k * period) for k in range(1, math.ceil(steps / period) + 1)}
        return sorted({mark for mark in marks if mark < steps} | {steps})


class Epochs:
    """Follows segments, and tells where one changes what an epoch is made of before that epoch has ended.

    An epoch of passes is one permutation of its instances, cut into steps: sub-datasets, shares and left-out instances
    must stay until it ends. Weights draw each example afresh and may change at any step.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mixture: Mixture | None = None
        self._began = 0
        """Step of the roll-out at which the current epoch began."""

    def follow(self, segment: Segment) -> str | None:
        """What is wrong with the next segment, in words; None where nothing is."""
        before, self._mixture = self._mixture, segment.mixture
        if segment.start == 0 or before is None:
            self._began = 0
        elif _made_of(before) != _made_of(segment.mixture) and segment.start != self._began:
            done, steps = segment.start - self._began, self._clock.steps_per_epoch(before)
            return f"changes the mixture after {done} of the {steps} steps of an epoch"
        if segment.trains:
            steps = self._clock.steps_per_epoch(segment.mixture)
            self._began += (segment.stop - self._began) // steps * steps
        return None


def _made_of(mixture: Mixture) -> tuple[object, ...]:
    """What decides the permutation of an epoch."""
    return mixture.tasks, mixture.shares, mixture.without, mixture.weights is None
