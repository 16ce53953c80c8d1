"""The live state of the engine: which snapshot the model stands at, and how it gets to another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import ROOT, Snapshot
from msft.data.order import Cursor
from msft.engine.averaging import Average
from msft.engine.blending import blended, merged
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.engine.shards import Shards
from msft.engine.step import Stepper
from msft.model.folder import fingerprint
from msft.model.open import OpenModel
from msft.snapshots.state import State, capture, copied, restore, trainable
from msft.snapshots.store import Store
from msft.system.stopwatch import spent

CHEAP = 0.01
"""With `durable: auto`, a snapshot is written to disk if that takes at most this share of the training since the last
one was: so a crash costs at most a hundred times as long as a write takes, and a tick. Where every core trains, the
writing thread slows training (docs/crash_safety.md)."""


class LiveState:
    """The trainable weights, the optimizer's moments, their average and the place in the order of examples.

    `weights`: by name, those that the optimizer updates. `snapshot`: where the model stands; None while it trains.
    `fingerprint`: of the base model.
    """

    def __init__(
        self,
        opened: OpenModel,
        weights: Mapping[str, Tensor],
        stepper: Stepper,
        average: Average | None,
        store: Store,
        settings: EngineSettings,
        processes: Processes,
        shards: Shards | None = None,
    ) -> None:
        self._shards = shards
        self._opened, self._weights, self._stepper, self._average = opened, weights, stepper, average
        self._store, self._durable, self._processes = store, settings.durable, processes
        self.fingerprint = fingerprint(opened.source)
        # A base is large, and may have to be quantised again; a fresh adapter is small.
        self._fresh: State | None = None
        if opened.source.peft is not None:
            self._fresh = State(tensors={f"weight/{n}": w.detach().to("cpu", copy=True) for n, w in weights.items()})
        self._unsaved = 0.0
        """Seconds of training since a snapshot was made durable."""
        self.snapshot: Snapshot | None = ROOT
        self.cursor = Cursor()

    def tensors(self) -> State:
        """The live trainable weights; not a copy, which would be expensive for a large model."""
        return State(tensors={f"weight/{name}": tensor.detach() for name, tensor in self._weights.items()})

    def become(self, snapshot: Snapshot) -> None:
        """Restores a snapshot, unless the live state is that snapshot. Raises RunError if it is missing or damaged."""
        if self.snapshot == snapshot:
            return
        with spent("restore"):
            self.snapshot = None
            self._load(snapshot, self._root() if snapshot == ROOT else self._store.get(snapshot))

    def blend(self, parts: Sequence[tuple[Snapshot, float]], number: Snapshot, ties: float | None = None) -> None:
        """Makes snapshot `number` the live state: the weighted mean of these snapshots, or their merger by TIES."""
        with spent("restore"):
            states = ((self._state_of(snapshot), share) for snapshot, share in parts)
            if ties is None:
                state = blended(states)
            elif self._shards is None:
                state = merged(list(states), self._state_of(ROOT), ties)
            else:
                pieces = self._shards
                state = merged(list(states), self._state_of(ROOT), ties, whole=pieces.whole, own=pieces.part)
            self.snapshot = None
            self._load(number, state)

    def keep(self, number: Snapshot, seconds: float) -> int:
        """Keeps the live state as a snapshot: durable if the settings say so, or writing takes little of the training
        since the last one that was.

        `seconds`: the segment's training time. Returns the snapshot's size in bytes once it is copied; it is written in
        the background, unless it does not fit in memory.
        """
        with spent("snapshot.capture"):
            mean = {} if self._average is None else self._average.tensors()
            device = None if self._store.has_room_on_gpu(number, self._size(mean)) else "cpu"
            state = capture(self._weights, self._stepper.optimizer, self.cursor, more=mean, device=device)
        with spent("snapshot.durable"):
            durable = self._durable == "tick"
            if self._durable == "auto":
                rate = self._store.bytes_per_second
                self._unsaved += seconds
                durable = rate is None or state.nbytes <= CHEAP * self._unsaved * rate
            if self._shards is not None:  # each process measures its own disk
                durable = self._processes.from_main(durable)
            self._unsaved = 0.0 if durable else self._unsaved
            size = self._store.put(number, state, durable)
            self._processes.barrier()
        return size if self._shards is None else sum(self._processes.of_all(size))

    def _size(self, mean: Mapping[str, Tensor]) -> int:
        """Bytes of a snapshot, with moments."""
        return 3 * sum(weight.nbytes for weight in self._weights.values()) + sum(t.nbytes for t in mean.values())

    def _state_of(self, snapshot: Snapshot) -> State:
        """A snapshot's tensors, not to be changed; of the live state without its moments, and not copied."""
        if self.snapshot == snapshot:
            mean = {} if self._average is None else self._average.tensors()
            return State(tensors={**self.tensors().tensors, **mean})
        return self._root() if snapshot == ROOT else self._store.get(snapshot)

    def _load(self, snapshot: Snapshot, state: State) -> None:
        restore(self._weights, self._stepper.optimizer, state)
        self._stepper.cast()
        if self._average is not None:
            self._average.load(state.tensors)
        self.snapshot, self.cursor = snapshot, state.cursor

    def _root(self) -> State:
        """The base weights or, for LoRA, a fresh adapter from its seed; without optimizer moments."""
        source = self._opened.source
        if fingerprint(source) != self.fingerprint:
            fix = "restore the model's files, or start a new run"
            raise RunError(complaint("the base model has changed during the run", fix, file=source.name_or_path))
        if self._fresh is not None:
            return self._fresh
        if self._shards is not None:
            return self._shards.base()
        return State(tensors=copied(trainable(self._opened.load())))
