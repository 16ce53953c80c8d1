"""The instances that each step trains on, as a pure function (design 3.1). There is no loader state.

Every random choice has its own stream, keyed by what is chosen, so that the order is the same for any number of
processes and after any restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msft.core.clock import Clock, per_epoch
from msft.core.vocabulary import Mixture, Task
from msft.data.examples import TaskData, all_rows
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
    """The position in the endless sequence of permutations of each sub-dataset, or of a group's member: before the
    current epoch (passes) or so far (weights)."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Instances that are drawn alike: all those of a sub-dataset, or those of one member of a group."""

    name: str
    """The sub-dataset's, or the member's."""
    indices: NDArray[np.int64]
    """[pool] its different instances, as indices within the sub-dataset."""
    size: int
    """Instances that an epoch takes."""


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
    `sizes`. `sources`: of groups, their members where an epoch does not take each instance of them once.
    """

    def __init__(
        self,
        seed: int,
        sizes: Mapping[Task, int],
        batch_size: int,
        pools: Mapping[Task, int] | None = None,
        sources: Mapping[Task, Sequence[Source]] | None = None,
    ) -> None:
        self.seed = seed
        self.sizes = dict(sizes)
        self.pools = dict(pools or sizes)
        alone = {task: (Source(task, np.arange(pool), sizes[task]),) for task, pool in self.pools.items()}
        self._sources: dict[Task, Sequence[Source]] = {**alone, **(sources or {})}
        # The order of all rows has no others: what `Mixture.whole` asks for is all of them.
        self._clock = Clock(sizes, batch_size, 1.0, pools, (self.sizes, self.pools))
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
                began = cursor.drawn.get(task, 0) - counts[task]
                for source, count in self._dealt(rollout, mixture, task, began, counts[task]):
                    if count < self._left(source, task, mixture):
                        start = cursor.drawn[source.name] - count
                        taken = self._cycled(rollout, mixture, task, source, start, count)
                        out |= {(task, index) for index in set(source.indices.tolist()) - set(taken.tolist())}
        return sorted(out)

    def _epoch(self, rollout: int, mixture: Mixture, cursor: Cursor) -> _Epoch:
        """The current epoch; cached until another is requested, so that a step costs only a slice."""
        drawn: tuple[int, ...] = ()
        if mixture.weights is None:
            names = (
                name for task in mixture.tasks for name in {task: None, **{s.name: None for s in self._sources[task]}}
            )
            drawn = tuple(cursor.drawn.get(name, 0) for name in names)
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
            count, sources = counts[task], self._sources[task]
            raw = raw_bits(max(count, self.pools[task]), self.seed, "epoch", rollout, cursor.epoch, task)
            once = len(sources) == 1 and self.sizes[task] == self.pools[task]
            if once and (mixture.shares is None or mixture.shares[position] == 1):
                # Keyed by the instance, so that leaving others out only filters the permutation.
                chosen = _pool(sources[0].indices, task, mixture)
                keys.append(raw[chosen])
                drawn[task] = count
            else:
                parts, at = list[NDArray[np.int64]](), cursor.drawn.get(task, 0)
                drawn |= {task: count} if len(sources) > 1 else {}
                for source, number in self._dealt(rollout, mixture, task, at, count):
                    # Whole passes, so that an epoch that repeats a source has all of it; then the next of its cycles.
                    left = self._left(source, task, mixture)
                    whole = 0 if source.size == len(source.indices) else number // max(1, left)
                    drawn[source.name] = number - whole * left
                    start = cursor.drawn.get(source.name, 0)
                    parts += [np.tile(_pool(source.indices, task, mixture), whole)]
                    parts += [self._cycled(rollout, mixture, task, source, start, drawn[source.name])]
                chosen = np.concatenate(parts)
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
        needed = {mixture.tasks[owner]: int((owners == owner).sum()) for owner in sorted(set(owners.tolist()))}
        taken = dict(needed)
        queues: dict[Task, Iterator[int]] = {}
        for task, number in needed.items():
            at, each = cursor.drawn.get(task, 0), list[Iterator[int]]()
            for source, part in self._dealt(rollout, mixture, task, at, number):
                start = cursor.drawn.get(source.name, 0)
                each.append(iter(self._cycled(rollout, mixture, task, source, start, part).tolist()))
                taken[source.name] = part
            queues[task] = iter(
                [next(each[label]) for label in self._labels(rollout, mixture, task, at, number).tolist()]
            )
        return [(mixture.tasks[owner], next(queues[mixture.tasks[owner]])) for owner in owners], taken

    def _dealt(self, rollout: int, mixture: Mixture, task: Task, at: int, count: int) -> list[tuple[Source, int]]:
        """How many of `count` instances come from each source, from position `at` of the sub-dataset on."""
        sources = self._sources[task]
        numbers = np.bincount(self._labels(rollout, mixture, task, at, count), minlength=len(sources))
        return list(zip(sources, numbers.tolist(), strict=True))

    def _labels(self, rollout: int, mixture: Mixture, task: Task, at: int, count: int) -> NDArray[np.int64]:
        """[count] the source of each instance from position `at` on: a permutation of an epoch's, again and again.

        So any epoch of the whole takes exactly what it should of each source, and a part of it does on average.
        """
        sources = self._sources[task]
        if len(sources) == 1:
            return np.zeros(count, np.int64)
        lefts = [self._left(source, task, mixture) for source in sources]
        sizes = [-(-s.size * left // len(s.indices)) for s, left in zip(sources, lefts, strict=True)]
        labels = np.repeat(np.arange(len(sources)), sizes)
        order = np.argsort(raw_bits(len(labels), self.seed, "members", rollout, task), kind="stable")
        found: NDArray[np.int64] = labels[order][(at + np.arange(count)) % len(labels)]
        return found

    def _cycled(
        self, rollout: int, mixture: Mixture, task: Task, source: Source, start: int, count: int
    ) -> NDArray[np.int64]:
        """[count] instances from position `start` of the endless sequence of permutations of a source."""
        size = self._left(source, task, mixture)
        parts = [np.empty(0, np.int64)]
        while count > 0:
            number, at = divmod(start, size)
            part = self._cycle(rollout, mixture, task, source, number)[at : at + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def _left(self, source: Source, task: Task, mixture: Mixture) -> int:
        """The number of instances of a source that the mixture does not leave out."""
        out = [index for owner, index in mixture.without if owner == task]
        return len(source.indices) - (int(np.isin(source.indices, out).sum()) if out else 0)

    def _cycle(self, rollout: int, mixture: Mixture, task: Task, source: Source, number: int) -> NDArray[np.int64]:
        key = (rollout, mixture.without, number)
        if source.name not in self._cycle_cache or self._cycle_cache[source.name][0] != key:
            raw = raw_bits(len(source.indices), self.seed, "cycle", rollout, number, source.name)
            order = source.indices[np.argsort(raw, kind="stable")]
            self._cycle_cache[source.name] = (key, _pool(order, task, mixture))
        return self._cycle_cache[source.name][1]


def order_of(data: Mapping[Task, TaskData], seed: int, batch_size: int, *, whole: bool = False) -> Order:
    """The order of a job; `whole`: that of the run on all rows, the held-out ones included."""
    sizes = {task: part.whole_size if whole else part.size for task, part in data.items()}
    pools = {task: len(part.train) + (len(part.held_out) if whole else 0) for task, part in data.items()}
    uneven = {task: part for task, part in data.items() if any(m.taken != m.train for m in part.members)}
    return Order(seed, sizes, batch_size, pools, {task: _members(part, whole) for task, part in uneven.items()})


def _members(part: TaskData, whole: bool) -> list[Source]:
    """The members of a group, whose examples lie side by side."""
    sources, first, held = list[Source](), 0, len(part.train)
    for member in part.members:
        indices, size = np.arange(first, first + member.train), member.taken
        if whole:
            indices = np.concatenate([indices, np.arange(held, held + member.held)])
            size = all_rows(member.taken, member.train, member.held)
        sources.append(Source(member.task, indices, size))
        first, held = first + member.train, held + member.held
    return sources


def _pool(indices: NDArray[np.int64], task: Task, mixture: Mixture) -> NDArray[np.int64]:
    """The indices that the mixture does not leave out, in the order given."""
    out = [index for owner, index in mixture.without if owner == task]
    return indices[~np.isin(indices, out)] if out else indices
