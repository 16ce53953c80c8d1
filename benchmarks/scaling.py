"""What splitting a model over GPUs takes: memory, traffic, snapshots, evaluation and the efficiency to expect.

    python benchmarks/scaling.py

A cost model, and no measurement: docs/scaling.md says which of its parts are held against counts and measured points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msft.engine.shards import gathered_at_a_time

PEAK = 989e12
"""FLOP/s of an H100 or H200 in bf16, by its data sheet."""
ALONE = 0.37
"""Share of it that a model of 1.2 billion parameters reached on one card with layers as they are, which is what a split
model computes with (docs/performance.md)."""
NVLINK, NETWORK = 450e9, 50e9
"""Bytes a second and GPU in one direction: within a machine of eight, and between machines (400 Gbit/s for each)."""
HOST, DISK = 50e9, 2e9
"""Bytes a second: from a GPU to the host's memory; from a machine to a shared disk."""
MACHINE = 8
TOKENS = 8_192
"""Of a micro-batch at most."""


@dataclass(frozen=True)
class Model:
    """The sizes of a model, in parameters."""

    name: str
    layers: int
    layer: int
    ends: int
    """Embeddings and output head, once where they are tied."""

    @property
    def all(self) -> int:
        return self.layers * self.layer + self.ends


MODELS = (
    Model("Qwen2.5-0.5B", 24, 14_912_384, 136_135_552),
    Model("Qwen2.5-3B", 36, 77_075_456, 311_166_976),
    Model("Qwen2.5-7B", 28, 233_057_792, 1_089_998_336),
    Model("Llama-3-70B", 80, 855_654_400, 2_101_354_496),
)


def state_bytes(model: Model, gpus: int) -> int:
    """Of a process: fp32 rows, moments, gradients and averages of all parameters, and what is gathered at a time."""
    transient = gathered_at_a_time(model.ends, model.layer, 2) if gpus > 1 else 4 * model.all
    return 20 * model.all // gpus + transient


def traffic(model: Model, size: int = 2) -> tuple[int, int]:
    """Bytes of a micro-batch that are gathered (layers twice, embeddings and head once), and that are summed in fp32.
    `size`: bytes of a gathered parameter."""
    return size * (2 * model.layers * model.layer + model.ends), 4 * model.all


def bandwidth(gpus: int) -> float:
    return NVLINK if gpus <= MACHINE else NETWORK


def step_seconds(model: Model, gpus: int, tokens: int) -> tuple[float, float]:
    """(computing, sending) of a step with this many tokens in all; the longer of the two decides, as they overlap."""
    each = tokens / gpus
    computing = 6 * (model.all - model.ends) * each / (PEAK * ALONE)
    if gpus == 1:
        return computing, 0.0
    batches = math.ceil(each / TOKENS)
    return computing, batches * sum(traffic(model)) * (gpus - 1) / gpus / bandwidth(gpus)


def efficiency(model: Model, gpus: int, tokens: int) -> float:
    computing, sending = step_seconds(model, gpus, tokens)
    return computing / max(computing, sending)


def snapshot_seconds(model: Model, gpus: int) -> tuple[float, float]:
    """(to the host, to the disk) of weights, moments and averages; every GPU its part, every machine its own link."""
    size = 16 * model.all
    machines = math.ceil(gpus / MACHINE)
    return size / gpus / HOST, size / machines / DISK


def enough(gpus: int) -> int:
    """Tokens of a micro-batch from which a GPU computes for longer than it sends, of a model with small ends."""
    return round((2 * 2 + 4) * PEAK * ALONE / (6 * bandwidth(gpus)))


def table(title: str, counts: Sequence[int], cell: Callable[[Model, int], str]) -> None:
    print(f"\n{title}\n")
    print("| model | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in counts) + " |")
    print("|---|" + "---:|" * len(counts))
    for model in MODELS:
        print(f"| {model.name} | " + " | ".join(cell(model, n) for n in counts) + " |")


def main() -> None:
    counts = (1, 8, 16, 64, 512)
    table("GB of a process", counts, lambda model, n: f"{state_bytes(model, n) / 1e9:.1f}")
    for tokens in (19_200, 153_600, 1_228_800):
        title = f"Efficiency, {tokens // 300:,} rows of 300 tokens in a step"
        table(title, counts[1:], lambda model, n, tokens=tokens: f"{efficiency(model, n, tokens):.0%}")  # type: ignore[misc]
    table(
        "Seconds of a snapshot: to the host's memory / to a shared disk",
        counts[1:],
        lambda model, n: "{:.2f} / {:.0f}".format(*snapshot_seconds(model, n)),
    )
    print(f"\nTokens of a micro-batch that are enough: {enough(8):,} in a machine, {enough(16):,} between machines")


if __name__ == "__main__":
    main()
