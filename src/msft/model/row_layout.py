"""Chooses how the rows of a micro-batch are laid out: the cheapest layout that is proven (`isolation.py`) and that the
model itself passes a trial in."""

from __future__ import annotations

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.data.examples import Example
from msft.forward.batches import MicroBatch, collate, row
from msft.forward.runtime import undisturbed
from msft.model.attention import NAME
from msft.model.isolation import REFUSALS, Layout, Probe, laid_out, proven, unmoved, vocabulary_of
from msft.model.token_loss import TokenLoss
from msft.model.twin import base_of

BEGIN_ALIKE = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 5, 4, 6]]
ALONE = [[4, 2, 5], [2, 5, 1, 3], [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 1]]
_FEW = Probe((2, 3, 5), 3, (2, 1, 3))
"""What a model itself is tried on, which may be large: the thorough proof is its twin's."""


def fitting_layout(loss: TokenLoss, device: torch.device, longest: int | None = None) -> Layout:
    """The cheapest layout that is proven for the model, and in which no likelihood changes with the tokens of other
    rows when the model itself is tried on a few of them.

    `longest`: no row of the run has more tokens (None: unknown). If the rows are flat, the model uses
    msft.model.attention from here on. Raises ModelError where even single rows are not what the plain model computes.
    """
    model = base_of(loss.model)
    own = model.config._attn_implementation
    with undisturbed(loss, device), torch.no_grad():
        few = _FEW.within(vocabulary_of(model))
        loss.probe(collate([row([examples(ALONE)[0]])], device))
        for layout in proven(model, longest, device):
            model.set_attn_implementation(NAME if layout.rows == "flat" else own)
            if _agrees(loss, layout, few, device) and unmoved(loss, layout, few, device):
                return layout
    model.set_attn_implementation(own)
    raise _unfit(model)


def _agrees(loss: TokenLoss, layout: Layout, probe: Probe, device: torch.device) -> bool:
    """Whether the model's likelihoods are, up to rounding, those of single rows."""
    alone = Layout(rows="padded", alone=True)
    try:
        found, expected = (laid_out(loss, each, probe.rows(), device, learned=False).nll for each in (layout, alone))
    except REFUSALS:
        return False
    return torch.allclose(torch.cat(found), torch.cat(expected), rtol=1e-3, atol=1e-4, equal_nan=True)


def check_rows(model: PreTrainedModel | PeftModel, longest: int) -> None:
    """Raises ModelError where no layout is proven for the model, which may be on the meta device."""
    base = base_of(model)
    if next(proven(base, longest, torch.device("cpu")), None) is None:
        raise _unfit(base)


def _unfit(model: PreTrainedModel) -> ModelError:
    found = f"{type(model).__name__} cannot be trained here: no layout of rows gives what it computes of single ones"
    return ModelError(complaint(found, "use another model", field="model.name_or_path"))


def gives(loss: TokenLoss, batch: MicroBatch, expected: Tensor) -> bool:
    """Whether the model accepts the micro-batch and returns these likelihoods."""
    try:
        found: Tensor = loss(batch).nll
    except REFUSALS:
        return False
    return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def examples(sequences: list[list[int]]) -> list[Example]:
    return [
        Example(ids=np.array(ids, np.int32), trained=np.arange(len(ids)) >= min(3, len(ids) - 1)) for ids in sequences
    ]
