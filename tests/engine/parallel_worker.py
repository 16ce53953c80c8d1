"""Started once, and once per process of two: trains a little in every way, and says what came out (test_parallel)."""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from tiny_engine import TASKS, segment, tiny_data, tiny_engine, tiny_folder
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from msft.core.vocabulary import Mixture, Probe, Task, Teacher
from msft.data.examples import Measure, TaskData
from msft.engine.parallel import Processes
from msft.engine.torch_engine import TorchEngine
from msft.model.hollow import Rows
from msft.snapshots.store import Store

ADAPTER = {"r": 4, "target_modules": "all-linear"}
CASES: dict[str, dict[str, Any]] = {
    "fp32": {"average": 0.5, "max_grad_norm": 0.5},
    "images": {"kind": "gemma3"},
    "mixed": {"average": 0.5, "precision": "mixed", "lengths": True},
    "split": {"average": 0.5, "max_grad_norm": 0.5, "shard": True},
    "split mixed": {"average": 0.5, "precision": "mixed", "shard": True},
    "split checkpointing": {"gradient_checkpointing": True, "tied": False, "shard": True},
    "split lora": {"peft": ADAPTER, "average": 0.5, "shard": True, "tied": False},
}
"""How the engine is set up, by name; one process splits nothing."""
FURTHER: dict[str, dict[str, Any]] = {
    "on host": {"average": 0.5, "precision": "mixed", "offload_optimizer": True},
    "split autocast": {"precision": "autocast", "shard": True},
    "split gpt2": {"kind": "gpt2", "gradient_checkpointing": True, "shard": True},
    "split lora mixed": {"peft": ADAPTER, "precision": "mixed", "shard": True},
}
"""For the campaign."""
if find_spec("bitsandbytes"):
    FURTHER |= {
        "nf4": {"peft": {"r": 2}, "quantize": "nf4", "tied": False},
        "nf4 mixed": {"peft": {"r": 2}, "quantize": "nf4", "tied": False, "precision": "mixed"},
        "8 bits": {"optimizer": "adamw_8bit", "precision": "mixed"},
    }


class Sent(TorchDispatchMode):
    """What processes exchange, in bytes: the largest tensor, and the sum of the largest of each operation, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self.total: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in {"c10d", "_c10d_functional"}:
            tensors = [each for each in torch.utils._pytree.tree_leaves(args) if isinstance(each, torch.Tensor)]
            size = max((tensor.nbytes for tensor in tensors), default=0)
            self.most = max(self.most, size)
            self.total[func._opname] = self.total.get(func._opname, 0) + size
        return func(*args, **(kwargs or {}))


def judge(answers: list[dict[str, Any]]) -> list[float]:
    """A user's own scorer: something that every word of a text changes."""
    return [sum(map(int, answer["generated"].replace("w", "").split())) / 1000 for answer in answers]


def data() -> dict[Task, TaskData]:
    made = tiny_data()
    own = Measure(name="parallel_worker:judge", max_new_tokens=6, control="report")
    return made | {"two": dataclasses.replace(made["two"], measure=own)}


def totals(store: Store, engine: TorchEngine) -> dict[str, float]:
    """The sum of the absolute values of each tensor of a snapshot, over all its rows."""
    found = store.get(1).tensors
    sums = {name: float(tensor.double().abs().sum()) for name, tensor in found.items()}
    if not store.in_parts:
        return sums
    rows = [name for name, tensor in found.items() if tensor.ndim]  # all but the counts of steps
    return sums | dict(zip(rows, Processes().total(np.array([sums[name] for name in rows])).tolist(), strict=True))


def split(engine: TorchEngine, read: list[int]) -> dict[str, Any]:
    """What shows that this process holds its rows only."""
    engine._stepper.cast()  # the trials at the start leave embeddings and head gathered
    parameters = list(engine._model.parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters)
    own = sum(parameter.to_local().numel() for parameter in parameters)
    return {"own": own, "all": sum(p.numel() for p in parameters), "read": sum(read)}


def observe(case: str, folder: Path, results: Path) -> dict[str, Any]:
    settings = dict((CASES | FURTHER)[case])
    kind, tied = settings.pop("kind", "llama"), settings.pop("tied", True)
    model = folder / f"{kind} {tied}"
    if Processes().is_main:
        tiny_folder(model, kind, tied=tied)
    Processes().barrier()
    read: list[int] = []
    plain = Rows.read

    def counted(self: Rows, name: str, first: int, last: int, dtype: torch.dtype) -> torch.Tensor:
        found = plain(self, name, first, last, dtype)
        read.append(found.numel())
        return found

    Rows.read = counted  # type: ignore[method-assign]
    place = results / case.replace(" ", "_")
    kept = place / f"snapshots{PartialState().process_index}"
    engine, store = tiny_engine(model, kept, batch_size=7, weight_decay=0.1, data=data(), **settings)
    Rows.read = plain  # type: ignore[method-assign]
    told: dict[str, Any] = {"split": split(engine, read)} if store.in_parts else {}
    base = engine.base()
    mixture = Mixture(tasks=TASKS, without=frozenset({("two", 1)}))
    outcome = engine.run(segment(0, 5, mixture=mixture, probes=frozenset({Probe.LOOKAHEAD, Probe.LOSSES})), 1)
    uneven = Mixture(tasks=TASKS, loss_weights=(0.5, 2.0, 0.0))
    with Sent() as trained:
        weighted = engine.run(segment(0, 3, parent=1, rollout=2, mixture=uneven), 2)
    with Sent() as rolled_back:
        engine._live.become(1)
    with Sent() as batch:
        engine._stepper.backward(data()["one"].train[:2], None)
    engine._stepper.optimizer.zero_grad(set_to_none=True)
    if store.in_parts:
        told |= {"sent": [trained.most, rolled_back.most], "traffic": batch.total}
    blended = engine.run(segment(0, 0, parent=2, blend=((0, 0.25), (1, 0.25), (2, 0.5))), 3)
    ties = engine.run(segment(0, 0, parent=2, blend=((1, 0.5), (2, 0.5)), ties=0.5), 4)
    taught = engine.run(segment(0, 3, parent=2, rollout=3, teacher=Teacher(snapshots=(1,), top=5)), 6)
    back = engine.run(segment(0, 0, parent=0), 5)
    assert back.scores == base.scores, "the base model is read again as it was"
    engine.export(1, place / "final")
    return told | {
        "base": base.scores, "scores": outcome.scores, "losses": outcome.losses, "lookahead": outcome.lookahead,
        "train_loss": outcome.train_loss, "weighted": weighted.scores, "blended": blended.scores, "ties": ties.scores,
        "taught": taught.scores,
        "tokens": [outcome.tokens.train, outcome.tokens.probe], "weights": totals(store, engine),
        "conflict": {" ".join(pair): cosine for pair, cosine in engine.conflict(1, 3).items()},
        "replicated": engine.replicated(),
    }  # fmt: skip


def main(folder: Path, results: Path, cases: dict[str, dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    rank = PartialState(cpu=True).process_index
    told = {case: observe(case, folder, results) for case in cases}
    (results / f"rank{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), FURTHER if sys.argv[3:] == ["further"] else CASES)
