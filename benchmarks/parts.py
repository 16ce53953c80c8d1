"""What each part of the step brings: without any, with each alone, with all; in turn, in one process.

    python benchmarks/parts.py --data DATA --out parts.json

Timed are the forward and backward pass over one global batch, and the scoring (by `loss`) of validation items. In turn
and in one process, because a shared machine's speed drifts by more within minutes than a part brings.
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
from torch import nn

from msft.data.examples import Example
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper, make_optimizer
from msft.forward.runtime import Runtime, sequence_scores
from msft.model.open import ModelSource, load_model
from msft.model.row_layout import fitting_layout, lighten
from msft.model.token_budget import ON_A_CPU
from msft.model.token_loss import TokenLoss

FEW, MANY = 2_048, ON_A_CPU
"""Tokens of a micro-batch: as it was once, and as the engine takes them by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    norms: bool = False
    mlp: bool = False
    head: bool = False
    gates: bool = False
    tokens: int = FEW


VARIANTS = {
    "none": Parts(),
    "light norms": Parts(norms=True),
    "last MLP at predicting tokens": Parts(mlp=True),
    "head, loss and embedding as one": Parts(head=True),
    "light gates": Parts(gates=True),
    f"micro-batches of {MANY:,} tokens": Parts(tokens=MANY),
    "all": Parts(norms=True, mlp=True, head=True, gates=True, tokens=MANY),
}


class Bench:
    def __init__(self, work: Work, source: ModelSource) -> None:
        device = torch.device(work.device)
        model = load_model(source)
        settings = EngineSettings(
            seed=work.seed, batch_size=work.batch_size, horizon=1, learning_rate=work.learning_rate
        )
        self.loss = TokenLoss(model).to(device).train()
        layout = fitting_layout(self.loss, device)
        plain = {module: type(module) for module in model.modules()}
        lighten(self.loss, layout, device, bf16=work.bf16, direct=True)
        lighter = {module: (kind, type(module)) for module, kind in plain.items() if type(module) is not kind}
        ends = nn.Embedding, nn.Linear
        self._ends = {module: kinds for module, kinds in lighter.items() if isinstance(module, ends)}
        self._gates = {module: kinds for module, kinds in lighter.items() if hasattr(module, "down_proj")}
        others = {*self._ends, *self._gates}
        self._norms = {module: kinds for module, kinds in lighter.items() if module not in others}
        self._narrows, self._fused = self.loss.narrow, self.loss.fused
        self._runtime = Runtime(device=device, max_tokens=FEW, bf16=work.bf16, layout=layout)
        self._stepper = Stepper(self.loss, make_optimizer(model, settings), settings, self._runtime)

    def having(self, parts: Parts) -> Runtime:
        """From here on the model has these parts."""
        for modules, has in ((self._norms, parts.norms), (self._ends, parts.head), (self._gates, parts.gates)):
            for module, kinds in modules.items():
                module.__class__ = kinds[has]
        self.loss.narrow = parts.mlp and self._narrows
        self.loss.fused = self._fused if parts.head else None
        self._stepper.runtime = replace(self._runtime, max_tokens=parts.tokens)
        return self._stepper.runtime

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
    results.write(parts=seconds)
    medians = {kind: {name: statistics.median(runs) for name, runs in found.items()} for kind, found in seconds.items()}
    lines = [
        (
            name,
            *(value for kind in kinds for value in (medians[kind][name], medians[kind][name] / medians[kind]["none"])),
        )
        for name in VARIANTS
    ]
    tokens = sum(map(len, batch)), sum(map(len, items))
    print(f"{len(batch)} examples, {tokens[0]} tokens; {len(items)} items, {tokens[1]} tokens; {given.repeats} turns")
    print(table(("", "step, s", "of none", "scoring, s", "of none"), lines))


if __name__ == "__main__":
    main()
