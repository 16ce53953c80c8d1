"""Probes at load time which row layout a model supports, instead of keeping a list of architectures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from msft.data.examples import Example
from msft.forward.batches import MicroBatch, RowLayout, collate, row
from msft.forward.runtime import undisturbed
from msft.model.attention import NAME
from msft.model.token_loss import TokenLoss

BEGIN_ALIKE = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 5, 4, 6]]
ALONE = [[4, 2, 5], [2, 5, 1, 3], [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 1]]


def fitting_layout(loss: TokenLoss, device: torch.device) -> RowLayout:
    """The cheapest layout in which each sequence gets the same likelihood as alone, probed on a few tokens.

    Other layouts than `padded` need a model that uses position ids, whose attention obeys our mask or can be replaced,
    and without a recurrent state along the row. A model with a sliding window gets `padded`: it would pass the probe
    and fail on longer rows. If the result is `flat`, the model uses msft.model.attention from here on.
    """
    model: Any = loss.model.get_base_model() if isinstance(loss.model, PeftModel) else loss.model
    alike, alone = examples(BEGIN_ALIKE), examples(ALONE)
    with undisturbed(loss, device), torch.no_grad():
        loss.probe(collate([row([alone[0]])], device))
        if getattr(model.config, "sliding_window", None) is not None:
            return "padded"
        apart = {id(e): loss(collate([row([e])], device)).nll for e in [*alike, *alone]}

        def same(groups: list[list[Example]], flat: bool) -> bool:
            expected = torch.cat([apart[id(example)] for group in groups for example in group])
            return gives(loss, collate([row(group) for group in groups], device, flat=flat), expected)

        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(NAME)
            if same([alone[:1], alone[1:2], alike, alone[2:]], flat=True):
                return "flat"
            model.set_attn_implementation("sdpa")
        return "branches" if same([alike], flat=False) else "padded"


def gives(loss: TokenLoss, batch: MicroBatch, expected: Tensor) -> bool:
    """Whether the model accepts the micro-batch and returns these likelihoods."""
    try:
        found: Tensor = loss(batch).nll
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False
    return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def examples(sequences: list[list[int]]) -> list[Example]:
    return [
        Example(ids=np.array(ids, np.int32), trained=np.arange(len(ids)) >= min(3, len(ids) - 1)) for ids in sequences
    ]
