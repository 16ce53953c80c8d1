"""What each part of the step brings: without any, with all, with all but one; in turn, in one process.

    python benchmarks/parts.py --data DATA --out parts.json

Timed are the forward and backward pass over one global batch, and the scoring (by `loss`) of validation items. In turn
and in one process, because a shared machine's speed drifts by more within minutes than a part brings. Kept are the
bytes that one micro-batch keeps for its backward pass (`saved_tensors_hooks`; what the head keeps for itself is not
among them).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import Results, Work, add_options, machine, table, without_places, work_of
from prepared import batches_of, examples_of, source_of, validation_of

from msft.data.examples import Example
from msft.engine.optimizers import make_optimizer
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper
from msft.forward.batches import collate
from msft.forward.runtime import Runtime, sequence_scores
from msft.forward.swap import restore
from msft.forward.token_rows import row
from msft.model.folder import ModelSource
from msft.model.lighten import EVERYTHING, Lighter, lighten
from msft.model.open import load_model
from msft.model.precision import Precision
from msft.model.row_layout import fitting_layout
from msft.model.token_budget import ON_A_CPU
from msft.model.token_loss import TokenLoss
from msft.snapshots.state import trainable

FEW, MANY = 2_048, ON_A_CPU
"""Tokens of a micro-batch: as it was once, and as the engine takes them by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    light: Lighter
    tokens: int = MANY


NOTHING = Lighter(norms=False, attention=False, gates=False, last_mlp=False, head=False)
VARIANTS = {
    "none": Parts(light=NOTHING, tokens=FEW),
    "all": Parts(light=EVERYTHING),
    "all but light norms": Parts(light=replace(EVERYTHING, norms=False)),
    "all but light gates": Parts(light=replace(EVERYTHING, gates=False)),
    "all but the last MLP at predicting tokens": Parts(light=replace(EVERYTHING, last_mlp=False)),
    "all but head, loss and embedding as one": Parts(light=replace(EVERYTHING, head=False)),
    f"all in micro-batches of {FEW:,} tokens": Parts(light=EVERYTHING, tokens=FEW),
}


class Bench:
    def __init__(self, work: Work, source: ModelSource) -> None:
        device = torch.device(work.device)
        model = load_model(source)
        settings = EngineSettings(
            seed=work.seed, batch_size=work.batch_size, horizon=1, learning_rate=work.learning_rate
        )
        self.loss = TokenLoss(model).to(device).train()
        self._layout = fitting_layout(self.loss, device).rows
        self._bf16 = work.bf16
        self._runtime = Runtime(device=device, max_tokens=FEW, bf16=work.bf16, layout=self._layout)
        self._stepper = Stepper(self.loss, make_optimizer(trainable(model), settings), settings, self._runtime)

    def having(self, parts: Parts) -> Runtime:
        """From here on the model has these parts."""
        restore(self.loss.model)
        self.loss.narrow, self.loss.fused = False, None
        precision: Precision = "autocast" if self._bf16 else "fp32"
        device = self._runtime.device
        lighten(self.loss, self._layout, device, precision=precision, direct=True, parts=parts.light)
        self._stepper.runtime = replace(self._runtime, max_tokens=parts.tokens)
        return self._stepper.runtime

    def kept(self, parts: Parts, batch: list[Example]) -> int:
        """Bytes that a forward pass over one micro-batch keeps for the backward pass."""
        runtime, seen = self.having(parts), dict[int, int]()
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.loss.parameters()}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        rows = collate([row([example]) for example in sorted(batch[:8], key=len)], runtime.device, layout=self._layout)
        with runtime.autocast(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            nll = self.loss(rows).nll
        nll.sum().backward()
        self._stepper.optimizer.zero_grad(set_to_none=True)
        return sum(seen.values())

    def step(self, parts: Parts, batch: list[Example]) -> float:
        """Seconds."""
        self.having(parts)
        began = time.perf_counter()
        self._stepper.backward(batch, (1, 2, 3))
        _wait(self._runtime.device)
        seconds = time.perf_counter() - began
        self._stepper.optimizer.zero_grad(set_to_none=True)
        return seconds

    def score(self, parts: Parts, items: list[Example]) -> float:
        """Seconds."""
        runtime = self.having(parts)
        began = time.perf_counter()
        sequence_scores(self.loss, [[item] for item in items], runtime)
        _wait(runtime.device)
        return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=1)
    parser.add_argument("--items", type=int, default=20, help="validation rows of each file (default: %(default)s)")
    given = parser.parse_args()
    work = replace(work_of(given, keep=False), steps=1, warm=0)
    if work.threads:
        torch.set_num_threads(work.threads)
    results = Results(given.out, without_places(work) | {"items": given.items}, machine(work))
    with tempfile.TemporaryDirectory() as place:
        source = source_of(work, Path(place))
        (batch,) = batches_of(work, examples_of(work, source))
        items = validation_of(work, source, given.items)
        bench = Bench(work, source)
    kinds: dict[str, Callable[[Parts], float]] = {
        "step": lambda parts: bench.step(parts, batch),
        "scoring": lambda parts: bench.score(parts, items),
    }
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in VARIANTS} for kind in kinds}
    for turn in range(given.repeats + 1):
        for kind, timed in kinds.items():
            for name, parts in VARIANTS.items():
                if (taken := timed(parts)) and turn:  # the first turn warms up
                    seconds[kind][name].append(taken)
    kept = {name: bench.kept(parts, batch) for name, parts in VARIANTS.items()}
    results.write(parts=seconds, kept=kept)
    medians = {kind: {name: statistics.median(runs) for name, runs in found.items()} for kind, found in seconds.items()}
    lines = [
        (
            name,
            *(value for kind in kinds for value in (medians[kind][name], medians[kind][name] / medians[kind]["all"])),
            kept[name] / 2**20,
            kept[name] / kept["all"],
        )
        for name in VARIANTS
    ]
    tokens = sum(map(len, batch)), sum(map(len, items))
    print(f"{len(batch)} examples, {tokens[0]} tokens; {len(items)} items, {tokens[1]} tokens; {given.repeats} turns")
    print(table(("", "step, s", "of all", "scoring, s", "of all", "kept, MiB", "of all"), lines))


if __name__ == "__main__":
    main()
