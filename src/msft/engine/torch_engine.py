"""The engine: runs segments on a torch model and scores it (the Engine protocol of msft.run.loop)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from msft.core.averages import Averaging
from msft.core.clock import Clock
from msft.core.vocabulary import ROOT, Mixture, Outcome, Probe, Segment, Snapshot, Task, Tokens
from msft.data.examples import Example, Item, Measure, TaskData
from msft.data.order import Cursor, order_of
from msft.engine.averaging import Average
from msft.engine.batched_decoding import fitting_decoding
from msft.engine.conflict import cosines
from msft.engine.decoding import decoding_of
from msft.engine.live_state import LiveState
from msft.engine.masters import weights_of
from msft.engine.outcomes import Booked, Losses, outcome
from msft.engine.parallel import Processes
from msft.engine.probes import lookahead
from msft.engine.progress import ScoreInfo, StepInfo
from msft.engine.ready import made_ready
from msft.engine.settings import EngineSettings, rates_of
from msft.engine.teaching import Teaching
from msft.engine.written_out import write_gathered, write_live
from msft.forward.runtime import Preparations, sequence_scores
from msft.model.limits import positions_of
from msft.model.open import OpenModel, non_embedding_parameters
from msft.scoring.sample_outputs import Sample, sample_outputs
from msft.scoring.scorers import TaskScores, score
from msft.snapshots.state import State
from msft.snapshots.store import Store
from msft.system import files
from msft.system.stopwatch import Kind, spent

OnStep: TypeAlias = Callable[[StepInfo | ScoreInfo], None]


class TorchEngine:
    """Trains one model on the segments passed to `run`, and scores it.

    `parameters`: number of parameters outside the embeddings, for the cost law; `model_bytes`: all weights, in fp32;
    `gpu`: what decides the rounding on a GPU, which the journal records; a resumed run that would differ is refused.
    `fingerprint`: of the base model; `light`: see `runtime_for`; `notes`: that, and what is to be known of the model's
    files. `learning_rates`: (first segment, rate from there on), in order, as a resumed run may have changed it. Raises
    ModelError where model and data do not fit together.
    """

    def __init__(
        self,
        opened: OpenModel,
        data: Mapping[Task, TaskData],
        settings: EngineSettings,
        store: Store,
        *,
        on_step: OnStep | None = None,
    ) -> None:
        self._opened, self._data, self._settings, self._store = opened, dict(data), settings, store
        self._on_step = on_step
        self._processes = Processes()
        self._order = order_of(data, settings.seed, settings.batch_size)
        self._whole = order_of(data, settings.seed, settings.batch_size, whole=True)
        self._clock = Clock(
            self._order.sizes, settings.batch_size, 1.0, self._order.pools, (self._whole.sizes, self._whole.pools)
        )
        ready = made_ready(opened, data, settings, self._processes)
        self._model, self._stepper, self._shards = ready.model, ready.stepper, ready.shards
        self._decoding, self.light = ready.decoding, ready.light
        self.notes: Sequence[str] = [*ready.told, *filter(None, [ready.light])]
        # Packed weights have fewer numbers than they stand for.
        counted = self._model if opened.quantized is None else opened.skeleton
        self.parameters = non_embedding_parameters(counted)
        self.model_bytes = 4 * sum(parameter.numel() for parameter in counted.parameters())
        on_gpu = self._processes.device.type == "cuda"
        self.gpu: Mapping[str, Any] = {"name": torch.cuda.get_device_name(), **self._stepper.plan} if on_gpu else {}
        self._known = Preparations(self._stepper.runtime)
        self._teaching = Teaching(data)
        weights = weights_of(self._model, self._stepper.held)
        self._average: Average | None = None
        if settings.average is not None:
            trained = tuple(task for task, part in data.items() if not part.aggregate)
            steps = self._clock.steps_per_epoch(Mixture(tasks=trained))
            self._average = Average(
                weights,
                Averaging(settings.average * steps, settings.average_warmup),
                self._stepper.cast,
                in_place=self._shards is not None,
            )
        self.learning_rates: Sequence[tuple[int, float]] = [(1, settings.learning_rate)]
        self._live = LiveState(
            opened, weights, self._stepper, self._average, store, settings, self._processes, self._shards
        )
        self.fingerprint = self._live.fingerprint

    def state(self) -> State:
        """The live trainable weights; not a copy, which would be expensive for a large model."""
        return self._live.tensors()

    def replicated(self) -> int:
        """A checksum of the trained weights, which every process must hold alike; 0 where each holds other rows."""
        if self._shards is not None:
            return 0
        return sum(int(tensor.view(torch.int32).sum(dtype=torch.int64)) for tensor in self.state().tensors.values())

    def base(self) -> Outcome:
        """Scores the base model on the validation items of every sub-dataset, and records each item."""
        self._live.become(ROOT)
        scores, tokens = self._validate(self._data, "eval.base")
        return outcome(
            ROOT,
            scores,
            Tokens(eval=tokens),
            items={task: found.items for task, found in scores.items()},
            metrics={task: found.reported for task, found in scores.items()},
        )

    def run(self, segment: Segment, number: int) -> Outcome:
        """Trains from the segment's parent to its end, or blends, keeps snapshot `number`, and scores and probes it.

        With `durable: tick` the snapshot is durable on return. Raises NotFiniteError if a loss is NaN or infinite,
        RunError if the parent or a part of a blend is missing or damaged.
        """
        began = time.perf_counter()
        probed = self._teaching.ask(segment, self._live, self._stepper, self._evaluated, self._tell)
        if segment.blend:
            self._live.blend(segment.blend, number, segment.ties)
        else:
            self._live.become(segment.parent)
        train_loss, trained, losses = self._train(segment, number) if segment.trains else (None, 0, {})
        files.stage("engine.keep")
        # Before scoring, so that the snapshot is written to disk meanwhile.
        size = self._live.keep(number, time.perf_counter() - began) if segment.makes else 0
        files.stage("engine.score")
        kind: Kind = "eval.ticks" if segment.makes else "eval.rollback"
        scores, scored = self._validate(segment.score, kind)
        falls: dict[Task, float] | None = None
        if Probe.LOOKAHEAD in segment.probes:
            falls, looked = self._lookahead(segment, number)
            probed += looked
        if Probe.LOSSES in segment.probes:
            probed += self._add_left_out(segment, losses)
        if self._settings.durable == "tick":
            with spent("snapshot.durable"):
                files.stage("engine.durable")
                self._store.finish()
        return outcome(
            number if segment.makes else segment.parent,
            scores,
            Tokens(train=trained, eval=scored, probe=probed),
            items={task: found.items for task, found in scores.items()} if Probe.ITEMS in segment.probes else None,
            metrics={t: found.reported for t, found in scores.items()} if Probe.METRICS in segment.probes else None,
            lookahead=falls,
            losses=losses if Probe.LOSSES in segment.probes else None,
            loss={task: found.loss for task, found in scores.items()} if Probe.LOSS in segment.probes else None,
            train_loss=train_loss,
            size=size,
        )

    def test(self, snapshot: Snapshot) -> Outcome:
        """Scores a snapshot on every test split, in a group by data set; `items` are those of the test metric."""
        self._live.become(snapshot)
        asked = {name: (items, part.measure) for part in self._data.values() for name, items in part.tests.items()}
        scores, tokens = self._score(asked, "eval.test")
        return outcome(
            snapshot, scores, Tokens(eval=tokens), items={task: found.reported for task, found in scores.items()}
        )

    def sample(
        self, snapshot: Snapshot, asked: Mapping[Task, tuple[Sequence[Item], Measure]]
    ) -> dict[Task, list[Sample]]:
        """What a snapshot answers to the given items; for people, outside any search and not counted as cost.

        Raises ModelError if it is not proven how the model generates.
        """
        self._live.become(snapshot)
        runtime, longest, decoding = self._stepper.runtime, self._settings.longest, self._decoding
        if decoding is None:  # the run itself generates nothing, so nothing was tried at its start
            decoding = decoding_of(self._model, self._opened.tokenizer, self._data)
            way = fitting_decoding(self._opened.skeleton, longest, runtime.device)
            runtime = replace(runtime, decoding=way)
        room = min((most for most in (longest, positions_of(self._model)) if most is not None), default=None)
        with self._evaluated():
            return sample_outputs(self._stepper.model, asked, runtime, decoding, room)

    def score_items(
        self, snapshot: Snapshot, items: Mapping[Task, tuple[Sequence[Item], Measure]]
    ) -> dict[Task, TaskScores]:
        """A snapshot's scores on the given items; for studies, outside any search and not counted as cost."""
        self._live.become(snapshot)
        with self._evaluated():
            return score(self._stepper.model, items, self._stepper.runtime, decoding=self._decoding)[0]

    def conflict(self, snapshot: Snapshot, count: int) -> dict[tuple[Task, Task], float]:
        """The cosines between the sub-datasets' gradients at a snapshot, over their first `count` training examples."""
        self._live.become(snapshot)
        return cosines(self._stepper, {t: part.train[:count] for t, part in self._data.items() if not part.aggregate})

    def export(self, snapshot: Snapshot, folder: Path) -> None:
        """Writes a snapshot as a Hugging Face folder; for LoRA, the adapter, which `msft export` merges."""
        self._live.become(snapshot)
        ends = [end for part in self._data.values() for end in part.ends]
        with self._evaluated():
            if self._shards is not None:
                write_gathered(self._shards, self._opened, folder, ends, main=self._processes.is_main)
            elif self._processes.is_main:
                write_live(self._stepper, self._model, self._opened, folder, ends)
        self._processes.barrier()

    def _evaluated(self) -> AbstractContextManager[None]:
        """Context in which the model has the weights that are evaluated and handed over: their average if there is
        one."""
        return nullcontext() if self._average is None else self._average.in_place_of_weights()

    def _train(self, segment: Segment, number: Snapshot) -> tuple[float, int, Losses]:
        """Trains a segment; returns its mean loss over steps, real tokens, and each trained example's latest loss."""
        cursor = Cursor() if segment.start == 0 else self._live.cursor
        assert cursor.step == segment.start, f"the parent is at step {cursor.step}, not {segment.start}"
        booked = Booked(segment, self._tell)
        self._live.snapshot = None
        if segment.reset_optimizer:
            self._stepper.optimizer.state.clear()
        rate_at = self._rates(segment, number)
        mixture = segment.mixture
        order = self._whole if mixture.whole else self._order
        weigh = None if mixture.loss_weights is None else dict(zip(mixture.tasks, mixture.loss_weights, strict=True))
        unread: deque[Callable[[], None]] = deque()
        for step in range(segment.start, segment.stop):
            with spent("train.input"):
                batch, cursor = order.batch(segment.rollout, mixture, cursor)
                examples = [self._data[task].example(index) for task, index in batch]
                weights = None if weigh is None else np.array([weigh[task] for task, _ in batch])
                rate = rate_at(step)
            with spent("train.compute"):
                key = self._settings.seed, segment.rollout, step
                read = self._stepper.begin(examples, key, weights, self._teaching.of(segment, batch))
                unread.append(partial(booked.add, step, batch, rate, sum(map(len, examples)), read))
                if not self._stepper.late:
                    unread.popleft()()
            with spent("train.optimizer"):
                self._stepper.update(rate)
                if self._average is not None:
                    self._average.update()
            with spent("train.compute"):
                # One step late, so that a GPU always has a step to compute. What follows a loss that is not finite is
                # never used: the segment ends there.
                while len(unread) > 1:
                    unread.popleft()()
        while unread:
            unread.popleft()()
        self._live.snapshot, self._live.cursor = number, cursor
        return booked.mean, booked.tokens, booked.losses

    def _rates(self, segment: Segment, number: int) -> Callable[[int], float]:
        """Returns a function from a step of this segment to its learning rate."""
        rate = [rate for since, rate in self.learning_rates if since <= number][-1]
        settings = replace(self._settings, learning_rate=rate)
        return rates_of(segment, settings, self._clock.steps_per_epoch(segment.mixture))

    def _validate(self, tasks: Iterable[Task], kind: Kind) -> tuple[dict[Task, TaskScores], int]:
        return self._score({task: (self._data[task].validation, self._data[task].measure) for task in tasks}, kind)

    def _score(
        self, asked: Mapping[Task, tuple[Sequence[Item], Measure]], kind: Kind
    ) -> tuple[dict[Task, TaskScores], int]:
        def progress(done: int, total: int) -> None:
            self._tell(ScoreInfo(tasks=tuple(asked), done=done, total=total))

        with spent(kind), self._evaluated():
            model, runtime = self._stepper.model, self._stepper.runtime
            return score(model, asked, runtime, decoding=self._decoding, progress=progress, known=self._known)

    def _lookahead(self, segment: Segment, number: int) -> tuple[dict[Task, float], int]:
        """The relative decreases, and the tokens of the passes before the virtual step (two) and after it (one)."""
        count = self._settings.lookahead_batch
        batches: dict[Task, Sequence[Example]] = {}
        for task in segment.mixture.tasks:
            indices = self._order.lookahead(segment.rollout, segment.stop, task, count)
            batches[task] = [self._data[task].train[index] for index in indices]
        rate = self._rates(segment, number)(segment.stop)
        with spent("probe"):
            falls = lookahead(self._stepper, batches, rate)
        return falls, 4 * sum(len(example) for batch in batches.values() for example in batch)

    def _add_left_out(self, segment: Segment, losses: Losses) -> int:
        """At the end of an epoch, adds the losses of the examples that were not part of it; returns their tokens."""
        if self._live.cursor.began != self._live.cursor.step:
            return 0
        left_out = self._order.not_taken(segment.rollout, segment.mixture, self._live.cursor)
        examples = [self._data[task].train[index] for task, index in left_out]
        if not examples:
            return 0
        with spent("probe"):
            means = sequence_scores(self._stepper.model, [[e] for e in examples], self._stepper.runtime).mean
        for (task, index), loss in zip(left_out, means.tolist(), strict=True):
            losses.setdefault(task, {})[index] = loss
        return sum(map(len, examples))

    def _tell(self, info: StepInfo | ScoreInfo) -> None:
        if self._on_step is not None:
            self._on_step(info)
