"""What a snapshot costs in each tier, against saving a model and its optimizer the usual way.

    python benchmarks/snapshot.py MODEL_FOLDER --repeats 3 --out snapshot.json
    python benchmarks/snapshot.py MODEL_FOLDER --device cuda
    python benchmarks/snapshot.py MODEL_FOLDER --steps 0          # without the optimizer step's own time

Ours: capture (the copy that a tick always makes), put in memory, publish (write, hash, sync, rename), restore from
memory, restore from disk (verified first). Theirs: `save_pretrained` and `torch.save(optimizer.state_dict())`, neither
of which syncs, hashes or renames anything; a second row makes them durable with fsync, which is what the bytes are
worth; then `from_pretrained` and `torch.load`. All in turn, medians; seconds of wall-clock and of processor time of all
threads. The optimizer step that a roll-back is held against takes `--batch` examples of `--length` tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from msft.data.order import Cursor
from msft.snapshots.state import State, capture, restore, trainable
from msft.snapshots.store import Store

OURS = ("capture", "put in memory", "publish", "restore from memory", "restore from disk")
THEIRS = ("save", "save and fsync", "load")
STEP = "optimizer step"


class Bench:
    """A model with an optimizer that has taken a step, and both ways to keep them."""

    def __init__(self, folder: str, device: str, place: Path, batch: int, length: int) -> None:
        self.folder, self.device, self.place = folder, device, place
        self.model = self.loaded(folder)
        self.optimizer = self.made(self.model)
        self.ids = torch.randint(0, 1000, (batch, length), generator=torch.Generator().manual_seed(0)).to(device)
        self.microbatch = max(1, 1024 // length)
        self.step(self.microbatch)
        self.memory = Store(place / "memory", memory_bytes=10**15)
        self.disk = Store(place / "disk", memory_bytes=0)
        self.state: State | None = None
        self.size = 0

    def loaded(self, folder: str | Path) -> nn.Module:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model.to(self.device)

    def made(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(self, rows: int | None = None) -> None:
        """One step over the batch, in micro-batches of about 1,024 tokens, as training takes it."""
        ids = self.ids[:rows]
        for part in ids.split(self.microbatch):
            (self.model(input_ids=part, labels=part).loss * len(part) / len(ids)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def capture(self) -> None:
        self.memory.prune(())  # one at a time is enough
        self.state = None
        self.state = capture(trainable(self.model), self.optimizer, Cursor())
        self.size = self.state.nbytes

    def put(self) -> None:
        assert self.state is not None
        self.memory.put(1, self.state, False)

    def publish(self) -> None:
        assert self.state is not None
        self.disk.put(1, self.state, True)

    def restore_from(self, store: Store) -> None:
        restore(trainable(self.model), self.optimizer, store.get(1))

    def save(self, *, sync: bool = False) -> None:
        folder = self.place / "theirs"
        shutil.rmtree(folder, ignore_errors=True)
        self.model.save_pretrained(folder)  # type: ignore[operator]
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        for path in folder.iterdir() if sync else []:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def load(self) -> None:
        """Into a model of its own: that is how it is done."""
        model = self.loaded(self.place / "theirs")
        kept = torch.load(self.place / "theirs" / "optimizer.pt", weights_only=True, map_location=self.device)
        self.made(model).load_state_dict(kept)

    def spoil(self) -> None:
        """Loses what the next restoration must bring back."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()
                self.optimizer.state[parameter]["exp_avg"].zero_()

    def same(self) -> bool:
        """Whether both restored what was captured."""
        assert self.state is not None
        now = capture(trainable(self.model), self.optimizer, Cursor()).tensors
        return all(torch.equal(now[name], tensor) for name, tensor in self.state.tensors.items())

    def kinds(self, steps: bool) -> dict[str, Callable[[], None]]:
        ours = (self.capture, self.put, self.publish, self._from_memory, self._from_disk)
        theirs = (self.save, lambda: self.save(sync=True), self.load)
        found = dict(zip((*OURS, *THEIRS), (*ours, *theirs), strict=True))
        return found | ({STEP: self.step} if steps else {})

    def _from_memory(self) -> None:
        self.restore_from(self.memory)

    def _from_disk(self) -> None:
        self.restore_from(self.disk)


def timed(call: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds of wall-clock and of processor time."""
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def table(medians: dict[str, dict[str, float]]) -> str:
    pairs = [
        ("publish", "save and fsync"), ("publish", "save"), ("restore from disk", "load"),
        ("restore from disk", "save and fsync"), ("restore from disk", "publish"), ("restore from memory", "load"),
        ("restore from memory", STEP), ("capture", STEP),
    ]  # fmt: skip
    lines = [f"{'':28}{'wall s':>10}{'processor s':>14}"]
    lines += [f"{kind:28}{found['wall']:10.3f}{found['cpu']:14.3f}" for kind, found in medians.items()]
    lines += ["", f"{'ratio of medians':48}{'wall':>8}{'processor':>12}"]
    for first, second in pairs:
        if second in medians:
            wall, cpu = (medians[first][unit] / max(medians[second][unit], 1e-9) for unit in ("wall", "cpu"))
            lines.append(f"{f'{first} / {second}':48}{wall:8.3f}{cpu:12.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="repeats that time an optimizer step as well (default: 1)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=76, help="tokens of each example (default: 76)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=arguments.out.parent if arguments.out else None))
    seconds: dict[str, list[tuple[float, float]]] = {}
    try:
        bench = Bench(arguments.model, arguments.device, place, arguments.batch, arguments.length)
        for number in range(arguments.repeats):
            for kind, call in bench.kinds(number < arguments.steps).items():
                if kind.startswith("restore"):
                    bench.spoil()
                seconds.setdefault(kind, []).append(timed(call, arguments.device))
                if kind.startswith("restore"):
                    assert bench.same(), f"{kind} gave something else"
        their_bytes = sum(path.stat().st_size for path in (place / "theirs").iterdir())
    finally:
        shutil.rmtree(place)
    medians = {
        kind: {"wall": statistics.median(w for w, _ in found), "cpu": statistics.median(c for _, c in found)}
        for kind, found in seconds.items()
    }
    result: dict[str, Any] = {
        "device": arguments.device, "threads": torch.get_num_threads(), "repeats": arguments.repeats,
        "bytes": {"ours": bench.size, "theirs": their_bytes}, "seconds": medians, "all": seconds,
    }  # fmt: skip
    print(f"{bench.size:,} bytes a snapshot, {their_bytes:,} saved the usual way; {result['threads']} threads")
    print(table(medians))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
