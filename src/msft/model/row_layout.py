"""How a model takes rows, and what it can leave out: found by trial, as no list of architectures could say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from msft.data.examples import Example
from msft.forward.batches import MicroBatch, RowLayout, collate, row
from msft.forward.runtime import undisturbed
from msft.model.attention import NAME
from msft.model.gated import lighten_gates
from msft.model.head import FusedHead, gather_directly
from msft.model.norms import lighten_norms
from msft.model.token_loss import TokenLoss

_BEGIN_ALIKE = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 5, 4, 6]]
_ALONE = [[4, 2, 5], [2, 5, 1, 3], [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 1]]


def fitting_layout(loss: TokenLoss, device: torch.device) -> RowLayout:
    """The most economical layout in which the model gives every sequence its own likelihood, tried on a few tokens.

    It takes position ids that reach the model, an attention that obeys a mask of its own or ours, and no state that
    runs along the row. A sliding window passes such a trial and fails on longer rows. Where the answer is `flat`, the
    model attends by msft.model.attention from here on.
    """
    model: Any = loss.model.get_base_model() if isinstance(loss.model, PeftModel) else loss.model
    if getattr(model.config, "sliding_window", None) is not None:
        return "padded"
    alike, alone = _examples(_BEGIN_ALIKE), _examples(_ALONE)
    with undisturbed(loss, device), torch.no_grad():
        apart = {id(e): loss(collate([row([e])], device)).nll for e in [*alike, *alone]}

        def same(groups: list[list[Example]], flat: bool) -> bool:
            expected = torch.cat([apart[id(example)] for group in groups for example in group])
            return _gives(loss, collate([row(group) for group in groups], device, flat=flat), expected)

        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(NAME)
            if same([alone[:1], alone[1:2], alike, alone[2:]], flat=True):
                return "flat"
            model.set_attn_implementation("sdpa")
        return "branches" if same([alike], flat=False) else "padded"


def lighten(loss: TokenLoss, layout: RowLayout, device: torch.device, *, bf16: bool, direct: bool) -> None:
    """From here on the model does less for the same likelihoods, as far as a trial shows that it can.

    The MLP of the last layer leaves out tokens that nothing is predicted from; not with gradient checkpointing, which
    runs it again when the micro-batch is no longer known. The head is fused with the loss (`model/head.py`),
    and gates are light (`model/gated.py`); under bf16 autocast, norms too (`model/norms.py`). `direct`: gradients of
    the vocabulary's weights go past autograd, as they may where no other process waits for them.
    """
    batch = collate([row([e]) for e in sorted(_examples(_ALONE), key=len)], device, flat=layout == "flat")
    with undisturbed(loss, device), torch.no_grad():
        expected: Tensor = loss(batch).nll
        if loss.narrows and not loss.checkpoints:
            loss.narrow = True
            loss.narrow = _gives(loss, batch, expected)
        if isinstance(head := loss.head, nn.Linear) and FusedHead.fits(head) and loss.ends_with_head:
            loss.fused = FusedHead(head, direct=direct)
            if _gives(loss, batch, expected):
                loss.fused.take_over()
            else:
                loss.fused = None
        if direct:
            gather_directly(loss.embedding)
        lighten_gates(loss.model)
        if bf16:
            lighten_norms(loss.model, lambda: loss(batch))


def _gives(loss: TokenLoss, batch: MicroBatch, expected: Tensor) -> bool:
    """Whether the model takes the micro-batch and gives these likelihoods."""
    try:
        found: Tensor = loss(batch).nll
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False
    return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def _examples(sequences: list[list[int]]) -> list[Example]:
    return [
        Example(ids=np.array(ids, np.int32), trained=np.arange(len(ids)) >= min(3, len(ids) - 1)) for ids in sequences
    ]
