"""The instances that each step trains on, as a pure function (design 3.1). There is no loader state.

Every random choice has its own stream, keyed by what is chosen, so that the order is the same for any number of
processes and after any restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msft.core.clock import Clock, per_epoch
from msft.core.vocabulary import Mixture, Task
from msft.data.streams import raw_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The position of a roll-out in its order; stored in every snapshot."""

    step: int = 0
    """Steps since the roll-out began."""
    began: int = 0
    """Step at which the current epoch began."""
    epoch: int = 0
    """Number of the current epoch within the roll-out."""
    drawn: Mapping[Task, int] = field(default_factory=dict)
    """The position in each sub-dataset's endless sequence of permutations: before the current epoch (passes) or so far
    (weights)."""

    def as_json(self) -> dict[str, Any]:
        return {"step": self.step, "began": self.began, "epoch": self.epoch, "drawn": dict(self.drawn)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Cursor:
        return cls(
            step=int(fields["step"]),
            began=int(fields["began"]),
            epoch=int(fields["epoch"]),
            drawn={str(task): int(count) for task, count in fields["drawn"].items()},
        )


@dataclass(frozen=True, slots=True)
class _Epoch:
    """The instances of an epoch in order, and how they are cut into steps."""

    steps: int
    instances: int
    drawn: Mapping[Task, int]
    """By how much the epoch moves each sub-dataset on in its sequence of permutations; empty with weights."""
    owners: NDArray[np.int64]
    """[instances] position of the sub-dataset in the mixture; empty with weights."""
    indices: NDArray[np.int64]
    """[instances] index within the sub-dataset; empty with weights."""

    def cut(self, step: int) -> tuple[int, int]:
        """The slice that a step takes: near-equal sizes, nothing dropped."""
        return step * self.instances // self.steps, (step + 1) * self.instances // self.steps


class Order:
    """The order of instances of one job.

    `sizes`: training instances that an epoch takes of each sub-dataset. `batch_size`: maximum instances per optimizer
    step; the steps of an epoch differ by at most one instance. `pools`: different instances of each sub-dataset; None:
    `sizes`.
    """

    def __init__(
        self, seed: int, sizes: Mapping[Task, int], batch_size: int, pools: Mapping[Task, int] | None = None
    ) -> None:
        self.seed = seed
        self.sizes = dict(sizes)
        self.pools = dict(pools or sizes)
        self._clock = Clock(sizes, batch_size, 1.0, pools)
        self._epoch_cache: tuple[object, _Epoch] | None = None
        self._cycle_cache: dict[Task, tuple[object, NDArray[np.int64]]] = {}

    def batch(self, rollout: int, mixture: Mixture, cursor: Cursor) -> tuple[list[tuple[Task, int]], Cursor]:
        """The global batch of the step at `cursor`, as (sub-dataset, index), and the cursor after it."""
        epoch = self._epoch(rollout, mixture, cursor)
        done = cursor.step - cursor.began
        assert done < epoch.steps, "the mixture of passes changed within an epoch"
        first, last = epoch.cut(done)
        if mixture.weights is None:
            batch = [
                (mixture.tasks[owner], int(index))
                for owner, index in zip(epoch.owners[first:last], epoch.indices[first:last], strict=True)
            ]
            taken = epoch.drawn if done + 1 == epoch.steps else {}
        else:
            batch, taken = self._sampled(rollout, mixture, cursor, last - first)
        step, began, number = cursor.step + 1, cursor.began, cursor.epoch
        if done + 1 == epoch.steps:
            began, number = step, number + 1
        drawn = dict(cursor.drawn)
        for task, count in taken.items():
            drawn[task] = drawn.get(task, 0) + count
        return batch, Cursor(step=step, began=began, epoch=number, drawn=drawn)

    def lookahead(self, rollout: int, step: int, task: Task, count: int) -> list[int]:
        """`count` distinct instances of a sub-dataset (all of them if it has fewer), from a separate stream."""
        keys = raw_bits(self.pools[task], self.seed, "lookahead", rollout, step, task)
        return [int(index) for index in np.argsort(keys, kind="stable")[:count]]

    def not_taken(self, rollout: int, mixture: Mixture, cursor: Cursor) -> list[tuple[Task, int]]:
        """The instances that were not part of the epoch which ended at `cursor`: those of `without`, and of a
        sub-dataset of which an epoch takes fewer than there are, the others. Shares and weights leave out no others."""
        out = set(mixture.without)
        if mixture.weights is None and cursor.epoch:
            counts = per_epoch(mixture, self.sizes, self.pools)
            for task in mixture.active:
                if counts[task] < self._left(task, mixture):
                    taken = self._cycled(rollout, mixture, task, cursor.drawn[task] - counts[task], counts[task])
                    out |= {(task, index) for index in set(range(self.pools[task])) - set(taken.tolist())}
        return sorted(out)

    def _epoch(self, rollout: int, mixture: Mixture, cursor: Cursor) -> _Epoch:
        """The current epoch; cached until another is requested, so that a step costs only a slice."""
        drawn = () if mixture.weights is not None else tuple(cursor.drawn.get(task, 0) for task in mixture.tasks)
        key = (rollout, mixture, cursor.epoch, drawn)
        if self._epoch_cache is None or self._epoch_cache[0] != key:
            self._epoch_cache = (key, self._build(rollout, mixture, cursor))
        return self._epoch_cache[1]

    def _build(self, rollout: int, mixture: Mixture, cursor: Cursor) -> _Epoch:
        counts = per_epoch(mixture, self.sizes, self.pools)
        steps = self._clock.steps_per_epoch(mixture)
        assert steps > 0, "a mixture without instances"
        keys, owners, indices = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        drawn: dict[Task, int] = {}
        for position, task in enumerate(mixture.tasks if mixture.weights is None else ()):
            count, once = counts[task], self.sizes[task] == self.pools[task]
            raw = raw_bits(max(count, self.pools[task]), self.seed, "epoch", rollout, cursor.epoch, task)
            if once and (mixture.shares is None or mixture.shares[position] == 1):
                # Keyed by the instance, so that leaving others out only filters the permutation.
                chosen = _pool(np.arange(self.pools[task]), task, mixture)
                keys.append(raw[chosen])
                drawn[task] = count
            else:
                # Whole passes, so that an epoch that repeats a sub-dataset has all of it; then the next of its cycles.
                whole = 0 if once else count // max(1, self._left(task, mixture))
                passes = np.tile(_pool(np.arange(self.pools[task]), task, mixture), whole)
                drawn[task] = count - len(passes)
                start = cursor.drawn.get(task, 0)
                chosen = np.concatenate([passes, self._cycled(rollout, mixture, task, start, drawn[task])])
                keys.append(raw[:count])
            owners.append(np.full(len(chosen), position))
            indices.append(chosen)
        by_key = np.argsort(np.concatenate(keys), kind="stable")
        return _Epoch(
            steps, sum(counts.values()), drawn, np.concatenate(owners)[by_key], np.concatenate(indices)[by_key]
        )

    def _sampled(
        self, rollout: int, mixture: Mixture, cursor: Cursor, count: int
    ) -> tuple[list[tuple[Task, int]], dict[Task, int]]:
        """A batch in which the sub-dataset of each instance is drawn, and the number of instances taken of each."""
        assert mixture.weights is not None
        bounds = np.cumsum(mixture.weights)
        bounds /= bounds[-1]
        draws = (raw_bits(count, self.seed, "draw", rollout, cursor.step) >> np.uint64(11)) * 2.0**-53
        owners = np.searchsorted(bounds, draws, side="right")
        taken = {mixture.tasks[owner]: int((owners == owner).sum()) for owner in sorted(set(owners.tolist()))}
        queues: dict[Task, Iterator[np.int64]] = {
            task: iter(self._cycled(rollout, mixture, task, cursor.drawn.get(task, 0), needed))
            for task, needed in taken.items()
        }
        names = [mixture.tasks[owner] for owner in owners]
        return [(task, int(next(queues[task]))) for task in names], taken

    def _cycled(self, rollout: int, mixture: Mixture, task: Task, start: int, count: int) -> NDArray[np.int64]:
        """[count] instances from position `start` of the endless sequence of permutations of a sub-dataset."""
        size = self._left(task, mixture)
        parts = [np.empty(0, np.int64)]
        while count > 0:
            number, at = divmod(start, size)
            part = self._cycle(rollout, mixture, task, number)[at : at + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def _left(self, task: Task, mixture: Mixture) -> int:
        """The number of instances of a sub-dataset that the mixture does not leave out."""
        return self.pools[task] - sum(owner == task for owner, _ in mixture.without)

    def _cycle(self, rollout: int, mixture: Mixture, task: Task, number: int) -> NDArray[np.int64]:
        key = (rollout, mixture.without, number)
        if task not in self._cycle_cache or self._cycle_cache[task][0] != key:
            raw = raw_bits(self.pools[task], self.seed, "cycle", rollout, number, task)
            self._cycle_cache[task] = (key, _pool(np.argsort(raw, kind="stable"), task, mixture))
        return self._cycle_cache[task][1]


def _pool(indices: NDArray[np.int64], task: Task, mixture: Mixture) -> NDArray[np.int64]:
    """The indices that the mixture does not leave out, in the order given."""
    out = [index for owner, index in mixture.without if owner == task]
    return indices[~np.isin(indices, out)] if out else indices
