"""What a process may take of a GPU, on a device that is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from msft.core.errors import ConfigError
from msft.model.memory import (
    SNAPSHOTS,
    TRAINING,
    USABLE,
    CardPlan,
    card_memory,
    share_card,
    share_of_training,
    training_bytes,
)  # fmt: skip
from msft.model.precision import precision_of_gpu
from msft.model.token_budget import LEAST, fitting

GIB = 2**30


class Card:
    """A GPU of 80 GiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fraction = 1.0
        properties = SimpleNamespace(total_memory=80 * GIB)
        for name, value in (
            ("get_device_properties", lambda number: properties),
            ("current_device", lambda: 0),
            ("get_per_process_memory_fraction", lambda number: self.fraction),
            ("set_per_process_memory_fraction", self.limit),
        ):
            monkeypatch.setattr(torch.cuda, name, value)

    def limit(self, fraction: float) -> None:
        self.fraction = fraction


@pytest.mark.parametrize(("snapshot", "on_host"), [(GIB, False), (20 * GIB, False), (GIB, True)])
@pytest.mark.parametrize("jobs", [1, 2, 6])
def test_processes_that_share_a_gpu_keep_to_the_plan(
    monkeypatch: pytest.MonkeyPatch, jobs: int, snapshot: int, on_host: bool
) -> None:
    Card(monkeypatch)
    share_card(jobs)
    plan = CardPlan(card=80 * GIB, jobs=jobs, training=2 * GIB, snapshot=snapshot, on_host=on_host)
    mine = card_memory(torch.device("cuda"))
    assert mine == plan.part and jobs * mine <= (80 if jobs == 1 else USABLE * 80) * GIB
    # Both of what a process holds for long fit into its part, whatever the others do.
    assert plan.training + plan.activations + plan.snapshots * plan.snapshot <= (TRAINING + SNAPSHOTS) * mine
    assert (plan.snapshots > 0) is (snapshot == GIB and not on_host)
    share = share_of_training(mine, snapshot, on_host=on_host)
    assert share == (TRAINING if plan.snapshots else TRAINING + SNAPSHOTS)
    tokens = fitting(mine, plan.training, GIB, share)
    assert tokens == LEAST or tokens / LEAST * GIB <= plan.activations


def test_mixed_precision_needs_a_gpu_with_bf16() -> None:
    for asked, has, found in (("auto", True, "mixed"), ("auto", False, "fp32"), ("autocast", False, "autocast")):
        assert precision_of_gpu(asked, has_bf16=has) == found  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"model.precision: a mixed model computes in bf16.*set it to fp32"):
        precision_of_gpu("mixed", has_bf16=False)


def test_frozen_parameters_have_no_master() -> None:
    assert training_bytes("mixed", 1000, 10, averaged=False, moments=80) == 990 * 2 + 10 * 20
    assert training_bytes("autocast", 1000, 1000, averaged=True, moments=8000) == 1000 * 20
