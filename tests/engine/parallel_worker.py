"""Started once, and once per process of two: trains a little and says what came out (test_parallel)."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tiny_engine import TASKS, segment, tiny_data, tiny_engine

from msft.core.vocabulary import Mixture, Probe, Task
from msft.data.examples import Measure, TaskData


def judge(answers: list[dict[str, Any]]) -> list[float]:
    """A user's own scorer: something that every word of a text changes."""
    return [sum(map(int, answer["generated"].replace("w", "").split())) / 1000 for answer in answers]


def data() -> dict[Task, TaskData]:
    made = tiny_data()
    own = Measure(name="parallel_worker:judge", max_new_tokens=6, control="report")
    return made | {"two": dataclasses.replace(made["two"], measure=own)}


def main(folder: Path, results: Path, precision: str, more: str = "{}") -> None:
    torch.set_num_threads(1)
    rank = PartialState(cpu=True).process_index
    engine, store = tiny_engine(
        folder, results / f"snapshots{rank}", batch_size=7, weight_decay=0.1, average=0.5, data=data(),
        precision=precision, lengths=precision == "mixed", **json.loads(more),
    )  # fmt: skip
    probes = frozenset({Probe.LOOKAHEAD, Probe.LOSSES})
    base = engine.base()
    mixture = Mixture(tasks=TASKS, without=frozenset({("two", 1)}))
    outcome = engine.run(segment(0, 5, mixture=mixture, probes=probes), 1)
    uneven = Mixture(tasks=TASKS, loss_weights=(0.5, 2.0, 0.0))
    weighted = engine.run(segment(0, 3, parent=1, rollout=2, mixture=uneven), 2)
    blended = engine.run(segment(0, 0, parent=2, blend=((0, 0.25), (1, 0.25), (2, 0.5))), 3)
    weights = {name: float(tensor.double().abs().sum()) for name, tensor in store.get(1).tensors.items()}
    engine.export(1, results / "final")
    told = {
        "base": base.scores, "scores": outcome.scores, "losses": outcome.losses,
        "lookahead": outcome.lookahead, "train_loss": outcome.train_loss, "weighted": weighted.scores,
        "blended": blended.scores,
        "tokens": [outcome.tokens.train, outcome.tokens.probe], "weights": weights,
    }  # fmt: skip
    (results / f"rank{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
