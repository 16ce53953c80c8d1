"""The one fake engine: learning curves that rise to a peak in the exposure of each sub-dataset, then fall.

Its state is what the real engine's is: a function of the base and of everything trained on the way to a snapshot, so
that rolling back really takes exposure back. Item noise, where asked for, is a function of (snapshot's content, item).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from msft.core.clock import Clock, per_epoch
from msft.core.vocabulary import ROOT, Brief, Outcome, Probe, Segment, Snapshot, Task, Tokens
from msft.data.order import Cursor, Order


@dataclass(frozen=True)
class Curve:
    """Score over exposure (how often each example was trained): from `base` up to `top` at `peak`, then down by `fall`
    for each further time."""

    peak: float = 2.0
    base: float = 0.2
    top: float = 0.8
    fall: float = 0.1

    def __call__(self, exposure: float) -> float:
        if exposure >= self.peak:
            return self.top - self.fall * (exposure - self.peak)
        return self.base + (self.top - self.base) * math.sin(exposure / self.peak * math.pi / 2)


class FakeStore:
    """Knows what is held; persisting is remembered so that a crash can lose the rest."""

    def __init__(self) -> None:
        self.held: set[Snapshot] = set()
        self.durable: set[Snapshot] = set()
        self.peak = 0

    def has(self, snapshot: Snapshot) -> bool:
        return snapshot in self.held

    def persist(self, snapshots: Collection[Snapshot]) -> None:
        assert set(snapshots) <= self.held
        self.durable |= set(snapshots)

    def prune(self, keep: Collection[Snapshot], durable: Collection[Snapshot] = ()) -> None:
        self.held &= set(keep)
        self.durable &= set(keep) | set(durable)

    def finish(self) -> None: ...

    def crash(self) -> None:
        self.held = set(self.durable)


@dataclass
class FakeEngine:
    curves: Mapping[Task, Curve]
    sizes: Mapping[Task, int]
    batch_size: int = 4
    eval_every: float = 0.25
    items: int = 0
    """Validation items per sub-dataset; 0: no noise."""
    interference: float = 0.0
    """How much one epoch of all others adds to the exposure of a sub-dataset."""
    store: FakeStore = field(default_factory=FakeStore)
    pools: Mapping[Task, int] | None = None
    """Different instances of each sub-dataset; None: `sizes`, what an epoch takes of each."""
    held: Mapping[Task, int] | None = None
    """Instances of each that are held out, for a run on all rows; None: no such run follows."""
    aggregate: Task | None = None
    """One of `curves`, but not of `sizes`: it is scored on the mean exposure, and never trained."""

    def __post_init__(self) -> None:
        self.distinct = dict(self.pools or self.sizes)
        whole = self._whole() if self.held is not None else None
        self.clock = Clock(self.sizes, self.batch_size, self.eval_every, self.pools, whole)
        self.states: MutableMapping[Snapshot, dict[Task, float]] = {ROOT: dict.fromkeys(self.sizes, 0.0)}
        self.trained = 0.0
        """Instances that went through optimizer steps."""
        self.runs: list[int] = []
        self.live: Snapshot = ROOT
        """Where the last run ended."""
        self.order = Order(0, self.sizes, self.batch_size, self.pools)
        self.whole = None if whole is None else Order(0, whole[0], self.batch_size, whole[1])
        self.cursors: dict[Snapshot, Cursor] = {}

    def _whole(self) -> tuple[dict[Task, int], dict[Task, int]]:
        """Sizes and pools of all rows."""
        held = self.held or {}
        pools = {task: pool + held[task] for task, pool in self.distinct.items()}
        return {task: -(-size * pools[task] // self.distinct[task]) for task, size in self.sizes.items()}, pools

    def base(self) -> Outcome:
        probes = frozenset({Probe.ITEMS, Probe.METRICS} if self.items else ())
        names = (*self.sizes, *([] if self.aggregate is None else [self.aggregate]))
        return self._measure(ROOT, names, probes, {}, 0)

    def run(self, segment: Segment, number: int) -> Outcome:
        for source in sorted(segment.sources):
            assert source in (ROOT, self.live) or self.store.has(source), f"{source} was let go"
        if segment.teacher is not None:  # to ask it may be to leave the live state
            assert segment.parent == ROOT or self.store.has(segment.parent), f"{segment.parent} was left"
        self.runs.append(number)
        self.live = number if segment.makes else segment.parent
        if segment.blend:
            self.cursors[number] = Cursor()
            self.keep(number, segment, self._blended(segment))
            return self._measure(number, segment.score, segment.probes, {}, 0, made=True)
        if not segment.trains:
            return self._measure(segment.parent, segment.score, segment.probes, {}, 0)
        self.cursors[number] = self._walk(segment)
        exposure = dict(self.states[segment.parent])
        mixture = segment.mixture
        counts = per_epoch(mixture, *(self._whole() if mixture.whole else (self.sizes, self.pools)))
        epochs = self.clock.epochs(mixture, segment.stop - segment.start)
        instances = epochs * sum(counts.values())
        if mixture.weights is not None:
            total = sum(mixture.weights)
            gained = {
                t: instances * w / total / self.distinct[t] for t, w in zip(mixture.tasks, mixture.weights, strict=True)
            }
        else:
            gained = {task: epochs * counts[task] / self.distinct[task] for task in mixture.tasks}
        rate = 1.0
        if segment.anneal is not None:
            rate = math.fsum(map(segment.anneal.factor, range(segment.start, segment.stop)))
            rate /= segment.stop - segment.start
        of = {} if segment.teacher is None else segment.teacher.of(mixture.tasks)
        gained = {task: rate * self._taught(segment, of.get(task), task, gain) for task, gain in gained.items()}
        for task, weight in zip(mixture.tasks, mixture.loss_weights or (), strict=mixture.loss_weights is not None):
            gained[task] *= weight
        mean = sum(gained.values()) / len(self.sizes)
        for task in exposure:
            exposure[task] += gained.get(task, 0.0) + self.interference * mean
        self.keep(number, segment, exposure)
        self.trained += instances
        return self._measure(number, segment.score, segment.probes, gained, instances, segment, made=True)

    def cursor(self, snapshot: Snapshot) -> Cursor:
        """Where the order stands at a snapshot."""
        return self.cursors[snapshot] if snapshot else Cursor()

    def _walk(self, segment: Segment) -> Cursor:
        """Takes the segment's batches as the real engine does, which fails where the order cannot be followed."""
        cursor = self.cursor(segment.parent) if segment.start else Cursor()
        assert cursor.step == segment.start, f"the parent stands at step {cursor.step}, not {segment.start}"
        for _ in range(segment.start, segment.stop):
            order = self.whole if segment.mixture.whole else self.order
            assert order is not None, "nothing is held out"
            _, cursor = order.batch(segment.rollout, segment.mixture, cursor)
        return cursor

    def _blended(self, segment: Segment) -> dict[Task, float]:
        """The weighted mean of the parts' exposures, also where the real engine merges by TIES."""
        return {
            task: math.fsum(weight * self.states[snapshot][task] for snapshot, weight in segment.blend)
            for task in self.sizes
        }

    def _taught(self, segment: Segment, by: Snapshot | None, task: Task, gain: float) -> float:
        """A gain in exposure that depends on the sub-dataset's teacher, if there is one."""
        if segment.teacher is None or by is None:
            return gain
        return gain * (1 - segment.teacher.share / (2 + self.states[by][task]))

    def keep(self, number: int, segment: Segment, exposure: dict[Task, float]) -> None:
        self.states[number] = exposure
        self.store.held.add(number)

    def test(self, snapshot: Snapshot) -> Outcome:
        return self._measure(snapshot, tuple(self.sizes), frozenset({Probe.ITEMS}), {}, 0)

    def export(self, snapshot: Snapshot, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "state.txt").write_text(repr(sorted(self.states[snapshot].items())), encoding="utf-8")

    def _exposure(self, snapshot: Snapshot, task: Task) -> float:
        """That of a sub-dataset; of the aggregate, their mean."""
        known = self.states[snapshot]
        return known[task] if task in known else math.fsum(known.values()) / len(known)

    def score(self, snapshot: Snapshot, task: Task) -> tuple[float, ...]:
        """Item scores; their mean is the sub-dataset's score."""
        exposure = self._exposure(snapshot, task)
        true = self.curves[task](exposure)
        if not self.items:
            return (true,)
        key = hashlib.sha256(f"{sorted(self.states[snapshot].items())} {task}".encode()).digest()
        draw = random.Random(key)
        return tuple(float(draw.random() < true) for _ in range(self.items))

    def _measure(
        self,
        snapshot: Snapshot,
        tasks: tuple[Task, ...],
        probes: frozenset[Probe],
        gained: Mapping[Task, float],
        instances: float,
        segment: Segment | None = None,
        made: bool = False,
    ) -> Outcome:
        items = {task: self.score(snapshot, task) for task in tasks}
        scores = {task: math.fsum(values) / len(values) for task, values in items.items()}
        state = self.states[snapshot]
        losses = None
        if segment is not None and Probe.LOSSES in probes:
            ended = abs((e := segment.epoch + gained_epochs(self, segment)) - round(e)) < 1e-9
            # An instance's loss stops moving once its sub-dataset has been seen eight times.
            losses = {
                t: {i: math.exp(-min(state[t], 8.0)) + 0.01 * i for i in range(n)} if ended else {}
                for t, n in self.distinct.items()
            }
        return Outcome(
            snapshot=snapshot,
            scores=scores,
            reports=dict(scores),
            items=items if Probe.ITEMS in probes else None,
            metrics=items if Probe.METRICS in probes else None,
            lookahead={t: 1.0 / (1.0 + state[t]) for t in self.sizes} if Probe.LOOKAHEAD in probes else None,
            losses=losses,
            loss={t: 1.0 - self.curves[t](self._exposure(snapshot, t)) for t in tasks}
            if Probe.LOSS in probes
            else None,
            train_loss=math.exp(-sum(state.values()) / len(state)) if gained else None,
            tokens=Tokens(
                train=round(10 * instances),
                eval=5 * len(tasks) * max(1, self.items),
                probe=self._read_by_teachers(segment) if segment and segment.teacher and not segment.start else 0,
            ),
            bytes=1000 if made else 0,
        )

    def _read_by_teachers(self, segment: Segment) -> int:
        """Tokens."""
        pools = self._whole()[1] if segment.mixture.whole else self.distinct
        return 10 * sum(pools.values())


def gained_epochs(engine: FakeEngine, segment: Segment) -> float:
    return engine.clock.epochs(segment.mixture, segment.stop - segment.start)


def brief_of(engine: FakeEngine, params: object, **changes: object) -> Brief:
    """The brief of a job on this engine."""
    values: dict[str, object] = {
        "tasks": tuple(engine.sizes),
        "sizes": tuple(engine.sizes.values()),
        "validation_sizes": (engine.items or 1,) * len(engine.sizes),
        "batch_size": engine.batch_size,
        "seed": 20,
        "base": engine.base(),
        "horizon": 10.0,
        "eval_every": engine.eval_every,
        "pools": None if engine.distinct == dict(engine.sizes) else tuple(engine.distinct.values()),
        "whole": None if engine.held is None else tuple(engine.whole.sizes.values()) if engine.whole else None,
        "held": None if engine.held is None else tuple(engine.held.values()),
        "aggregate": engine.aggregate,
        "params": params,
    }
    return Brief(**{**values, **changes})  # type: ignore[arg-type]
