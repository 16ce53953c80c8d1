"""What training needs of a device's memory, and what each of several processes may take of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msft.model.precision import Precision
from msft.model.quantised import Packed

TRAINING, SNAPSHOTS = 0.6, 0.2
"""Shares of its part of a GPU's memory that a process may take for training and for snapshots; generation's cache and
fragmentation need the rest."""
USABLE = 0.95
"""Share of a GPU's memory that processes which share it may take together; the driver needs some for each."""

UNPACKED = Packed()


def each_trained(
    precision: Precision, *, averaged: bool, moments: float = 8, on_host: bool = False
) -> dict[str, float]:
    """Bytes for each parameter that is trained, by use; `moments`: on average, AdamW's by default.

    `on_host`: masters, moments and averages are elsewhere.
    """
    mixed = precision == "mixed"
    return {
        **({} if on_host else {"master": 4, "moments": moments}),
        **({"copy": 2} if mixed else {}),
        "gradient": 4,
        **({"gradient in bf16": 2} if mixed else {}),
        **({"mean": 4} if averaged and not on_host else {}),
    }


def frozen_bytes(precision: Precision, parameters: int, trained: int, packed: Packed) -> int:
    """Bytes of the weights that are not trained; `packed`: of the parameters that are held in 4 or 8 bits."""
    return packed.nbytes + (parameters - trained - packed.parameters) * (2 if precision == "mixed" else 4)


def training_bytes(
    precision: Precision,
    parameters: int,
    trained: int,
    *,
    averaged: bool,
    moments: int,
    packed: Packed = UNPACKED,
    on_host: bool = False,
) -> int:
    """Bytes of weights, gradients, moments and averages, without activations; frozen parameters have no master.

    `moments`: bytes of all of them. `packed`: those of the parameters that are held in 4 or 8 bits. `on_host`: see
    `each_trained`.
    """
    frozen = frozen_bytes(precision, parameters, trained, packed)
    each = each_trained(precision, averaged=averaged, moments=0, on_host=on_host)
    return frozen + (0 if on_host else moments) + int(trained * sum(each.values()))


def part_of_card(card: int, jobs: int) -> int:
    """What a process may take of a card that this many share; more is refused by torch's allocator (`share_card`)."""
    return int(card * (1.0 if jobs == 1 else USABLE / jobs))


def share_of_training(part: int, snapshot: int, *, on_host: bool = False) -> float:
    """The share of its part of a card that a process may take for training. A snapshot that is larger than the share
    for snapshots goes to the host, as do those of masters that are there: then training has that share too."""
    return TRAINING if snapshot <= SNAPSHOTS * part and not on_host else TRAINING + SNAPSHOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPlan:
    """The memory of one process on a GPU that it may share, in bytes."""

    card: int
    jobs: int
    """Processes that share it."""
    training: int
    """Weights, gradients, moments and averages."""
    snapshot: int
    on_host: bool = False
    """Whether masters, and so snapshots, are on the host."""

    @property
    def part(self) -> int:
        return part_of_card(self.card, self.jobs)

    @property
    def activations(self) -> int:
        """What is left for a micro-batch; negative if not even the weights fit."""
        return int(share_of_training(self.part, self.snapshot, on_host=self.on_host) * self.part) - self.training

    @property
    def snapshots(self) -> int:
        """Snapshots that stay on the card; further ones are kept on the host."""
        return 0 if self.on_host else int(SNAPSHOTS * self.part) // max(self.snapshot, 1)


def card_memory(device: torch.device) -> int:
    """Bytes of the GPU's memory that this process may take: the processes of a study share a GPU."""
    number = torch.cuda.current_device() if device.index is None else device.index
    total: int = torch.cuda.get_device_properties(number).total_memory
    return int(total * torch.cuda.get_per_process_memory_fraction(number))


def share_card(processes: int) -> None:
    """Limits this process to its part of the memory of its GPU, so that no process of several takes that of another."""
    if processes > 1:
        torch.cuda.set_per_process_memory_fraction(USABLE / processes)
