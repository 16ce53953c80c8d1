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
    """The float as the decimal that its repr shows: 0.1 is exactly 1/10, so 0.1 * 30 instances are 3, never 4."""
    return Fraction(repr(number))


def per_epoch(mixture: Mixture, sizes: Mapping[Task, int], pools: Mapping[Task, int] | None = None) -> dict[Task, int]:
    """Instances of each sub-dataset in one epoch; at least one of each that `without` does not empty.

    `sizes`: what an epoch of the full mixture takes of each; `pools`: its distinct instances, if these are others. What
    is taken falls in proportion to the instances that `without` leaves out.

    With weights, an epoch draws the sum of these numbers, from any sub-dataset.
    """
    left_out: dict[Task, int] = dict.fromkeys(mixture.tasks, 0)
    for task, _ in mixture.without:
        if task in left_out:
            left_out[task] += 1
    pools = pools or sizes
    whole = {
        task: -(-sizes[task] * (pools[task] - out) // pools[task]) if out else sizes[task]
        for task, out in left_out.items()
    }
    if mixture.shares is None:
        return whole
    shares = zip(mixture.tasks, mixture.shares, strict=True)
    # Exact arithmetic is slow, and most shares are 1.
    return {task: whole[task] if share == 1 else math.ceil(exact(share) * whole[task]) for task, share in shares}


class Clock:
    """Converts between steps, epochs and ticks for one job (sizes, batch size, evaluation interval; `per_epoch`).

    `whole`: sizes and pools of a mixture that also takes what is held out; None: there is none.
    """

    def __init__(
        self,
        sizes: Mapping[Task, int],
        batch_size: int,
        eval_every: float,
        pools: Mapping[Task, int] | None = None,
        whole: tuple[Mapping[Task, int], Mapping[Task, int]] | None = None,
    ) -> None:
        self.sizes = dict(sizes)
        self.pools = dict(pools or sizes)
        self._whole = whole
        self.batch_size = batch_size
        self.eval_every = exact(eval_every)

    @classmethod
    def of(cls, brief: Brief) -> Clock:
        sizes, pools = (dict(zip(brief.tasks, counts, strict=True)) for counts in (brief.sizes, brief.distinct))
        whole = None
        if brief.whole is not None and brief.held is not None:
            all_rows = {task: pools[task] + held for task, held in zip(brief.tasks, brief.held, strict=True)}
            whole = dict(zip(brief.tasks, brief.whole, strict=True)), all_rows
        return cls(sizes, brief.batch_size, brief.eval_every, pools, whole)

    def instances(self, mixture: Mixture) -> int:
        """Instances in an epoch of the mixture."""
        assert self._whole is not None or not mixture.whole, "nothing is held out"
        sizes, pools = self._whole if mixture.whole and self._whole else (self.sizes, self.pools)
        return sum(per_epoch(mixture, sizes, pools).values())

    def steps_per_epoch(self, mixture: Mixture) -> int:
        return -(-self.instances(mixture) // self.batch_size)

    def steps(self, mixture: Mixture, epochs: float) -> int:
        """Optimizer steps in `epochs` epochs of the mixture, at least one; a rounding error never adds a step."""
        steps = math.ceil(Fraction(epochs) * self.steps_per_epoch(mixture) - Fraction(1, 10**6))
        return max(1, steps)

    def epochs(self, mixture: Mixture, steps: int) -> float:
        return steps / self.steps_per_epoch(mixture)

    def ticks(self, mixture: Mixture, steps: int) -> list[int]:
        """The ticks of the next `steps` steps: the distinct ceil(k * eval_every * steps_per_epoch), and `steps`."""
        period = self.eval_every * self.steps_per_epoch(mixture)
        marks = {math.ceil(k * period) for k in range(1, math.ceil(steps / period) + 1)}
        return sorted({mark for mark in marks if mark < steps} | {steps})


class Epochs:
    """Checks that no segment changes the content of an epoch before that epoch has ended.

    Without weights, an epoch is one permutation of its instances, cut into steps: its sub-datasets, shares and left-out
    instances must not change until it ends. With weights, each instance is drawn independently, so that the weights may
    change at any step. What is replayed changes with an epoch in either case: it is a decision, not a draw. Weights of
    losses may change at any step: they are no part of what is trained on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mixture: Mixture | None = None
        self._began = 0
        """Step of the roll-out at which the current epoch began."""

    def follow(self, segment: Segment) -> str | None:
        """Describes what is wrong with the next segment; None if it is valid."""
        if segment.blend:
            return None  # made beside the training, which may continue where it was
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
    """The fields of a mixture that must not change within an epoch."""
    drawn = mixture.weights is not None
    return mixture.tasks, mixture.shares, mixture.without, drawn, mixture.replayed, mixture.whole
