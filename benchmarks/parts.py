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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import Results, Work, add_options, machine, table, without_places, work_of
from prepared import batches_of, examples_of, source_of, validation_of
from torch import Tensor
from torch.nn import functional

from msft.data.examples import Example
from msft.engine import loss as loss_module
from msft.engine.budget import ON_A_CPU
from msft.engine.layout import fitting_layout, lighten
from msft.engine.loss import TokenLoss
from msft.engine.model import ModelSource, load_model
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper, make_optimizer
from msft.scoring.batches import TokenScores
from msft.scoring.forward import Runtime, sequence_scores

FEW, MANY = 2_048, ON_A_CPU
"""Tokens of a micro-batch: as it was once, and as the engine takes them by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    norms: bool = False
    mlp: bool = False
    pieces: bool = False
    tokens: int = FEW


VARIANTS = {
    "none": Parts(),
    "light norms": Parts(norms=True),
    "last MLP at predicting tokens": Parts(mlp=True),
    "loss in pieces": Parts(pieces=True),
    f"micro-batches of {MANY:,} tokens": Parts(tokens=MANY),
    "all": Parts(norms=True, mlp=True, pieces=True, tokens=MANY),
}


def torchs_own(logits: Tensor, targets: Tensor, hits: bool) -> TokenScores:
    logits = logits.float()
    nll = functional.cross_entropy(logits, targets, reduction="none")
    return TokenScores(nll, logits.argmax(-1) == targets if hits else None)


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
        lighten(self.loss, layout, device, bf16=work.bf16)
        self._norms = {module: (kind, type(module)) for module, kind in plain.items() if type(module) is not kind}
        self._narrows = self.loss.narrow
        self._runtime = Runtime(device=device, max_tokens=FEW, bf16=work.bf16, layout=layout)
        self._stepper = Stepper(self.loss, make_optimizer(model, settings), settings, self._runtime)

    @contextmanager
    def having(self, parts: Parts) -> Iterator[Runtime]:
        for norm, kinds in self._norms.items():
            norm.__class__ = kinds[parts.norms]
        self.loss.narrow = parts.mlp and self._narrows
        self._stepper.runtime = replace(self._runtime, max_tokens=parts.tokens)
        own: Callable[..., Any] = loss_module._read
        with patch.object(loss_module, "_read", own if parts.pieces else torchs_own):
            yield self._stepper.runtime

    def step(self, parts: Parts, batch: list[Example]) -> float:
        """Seconds."""
        with self.having(parts):
            began = time.perf_counter()
            self._stepper.backward(batch, (1, 2, 3))
            _wait(self._runtime.device)
            seconds = time.perf_counter() - began
        for parameter in self.loss.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        return seconds

    def score(self, parts: Parts, items: list[Example]) -> float:
        """Seconds."""
        with self.having(parts) as runtime:
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
