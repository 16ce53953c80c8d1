"""Validation loss: our `loss` scorer against TRL's `SFTTrainer.evaluate`, the same items, the same numbers.

    python benchmarks/evaluation.py --data DATA --items 40 --out evaluation.json

Both score the completion's tokens with the same weights, in turn, in one process. `evaluate` averages the token means
of its batches; ours gives every item's loss, from which the same average is made to compare.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl_steps
from common import Contender, Results, Work, add_options, machine, table, without_places, work_of
from contenders import engine_of
from numpy.typing import NDArray
from prepared import TASK, source_of, validation_of

from msft.core.vocabulary import ROOT
from msft.data.examples import Example, Item, Measure
from msft.engine.torch_engine import TorchEngine
from msft.model.folder import ModelSource


class Ours:
    def __init__(self, work: Work, source: ModelSource, items: list[Example], folder: Path) -> None:
        self.engine: TorchEngine = engine_of(work, source, items[:1], folder)

    def __call__(self, items: list[Example]) -> NDArray[np.float64]:
        """[items] nats, summed over the learned tokens of each."""
        asked = {TASK: ([Item(options=(item,)) for item in items], Measure(name="loss"))}
        means = np.array(self.engine.score_items(ROOT, asked)[TASK].items)
        return np.asarray(-means * np.array([item.targets for item in items]), np.float64)


def as_trl_averages(nll: NDArray[np.float64], items: list[Example], micro: int) -> float:
    """The mean over items of their batch's mean over tokens."""
    total = 0.0
    for start in range(0, len(items), micro):
        batch = items[start : start + micro]
        total += len(batch) * nll[start : start + micro].sum() / sum(item.targets for item in batch)
    return total / len(items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=1)
    parser.add_argument("--items", type=int, default=40, help="validation rows of each file (default: %(default)s)")
    parser.add_argument("--micro", type=int, default=8, help="TRL: rows of a batch (default: %(default)s)")
    given = parser.parse_args()
    work = work_of(given, keep=False)
    if work.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: the engine takes a GPU where it sees one
    if work.threads:
        torch.set_num_threads(work.threads)
    setup = without_places(work) | {"items": given.items, "micro": given.micro}
    results = Results(given.out, setup, machine(work))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = source_of(work, folder)
        items = validation_of(work, source, given.items)
        ours = Ours(work, source, items, folder)
        theirs = trl_steps.Evaluation(work, Contender(name="padded", micro=given.micro), source, items[:1], folder)
        for scorer in (ours, theirs):  # what is only done once is not timed
            scorer(items[: given.micro])
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(given.repeats):
            began = time.perf_counter()
            nll = ours(items)
            seconds["ours"].append(time.perf_counter() - began)
            began = time.perf_counter()
            their_loss = theirs(items)
            seconds["theirs"].append(time.perf_counter() - began)
    tokens = sum(item.targets for item in items)
    summary: dict[str, Any] = {
        "items": len(items),
        "scored_tokens": tokens,
        "seconds": seconds,
        "ratio": statistics.median(seconds["ours"]) / statistics.median(seconds["theirs"]),
        "loss": {"ours_per_token": nll.sum() / tokens, "ours_as_theirs": as_trl_averages(nll, items, given.micro)}
        | {"theirs": their_loss},
    }
    results.write(summary=summary)
    lines = [
        ("seconds, median", *(statistics.median(seconds[name]) for name in seconds)),
        ("loss, mean of batch means", *(f"{summary['loss'][name]:.6f}" for name in ("ours_as_theirs", "theirs"))),
        ("loss, per token", f"{summary['loss']['ours_per_token']:.6f}", None),
    ]
    print(table((f"{len(items)} items", "ours", "SFTTrainer.evaluate"), lines))
    print(f"ours takes {summary['ratio']:.2f} of its wall-clock")


if __name__ == "__main__":
    main()
