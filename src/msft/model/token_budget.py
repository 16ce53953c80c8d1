"""How many tokens a micro-batch may hold (design 3.3): a fixed number on a CPU, what fits on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from msft.data.examples import Example
from msft.forward.batches import RowLayout, collate
from msft.forward.token_rows import row
from msft.model.limits import positions_of
from msft.model.memory import TRAINING, card_memory
from msft.model.token_loss import TokenLoss

ON_A_CPU = 3_072
"""Tokens. More are not faster on a CPU and need more memory for activations."""
LEAST, MOST = 1_024, 65_536
_ROW = 256


def token_budget(
    loss: TokenLoss,
    layout: RowLayout,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    fixed: int,
    share: float = TRAINING,
    *,
    times: int = 1,
) -> int:
    """Tokens of a micro-batch of this model on this device.

    `fixed`: bytes that training takes beside activations (`training_bytes`); `share`: see `share_of_training`;
    `times`: of how many micro-batches the activations must fit at the same time.

    On a GPU this is probed by a forward and backward pass of two micro-batches. The result is a power of two, computed
    from the device's total and not its free memory, so that a resumed run makes the same micro-batches.
    """
    if device.type != "cuda":
        return ON_A_CPU
    # The first takes what stays, such as the workspaces of products.
    peaks = [_peak(loss, tokens, layout, device, autocast) for tokens in (LEAST, LEAST, 2 * LEAST)]
    return fitting(card_memory(device), fixed, times * (peaks[2] - peaks[1]), share)


def fitting(total: int, state: int, of_a_thousand: int, share: float = TRAINING) -> int:
    """The largest power of two of tokens whose activations fit beside `state` into a share of `total` bytes.

    `of_a_thousand`: bytes of the activations of LEAST tokens. The result is at least LEAST, even if memory may then run
    out, and at most MOST.
    """
    fits = LEAST * (share * total - state) / max(of_a_thousand, 1)
    return min(MOST, max(LEAST, 1 << int(np.log2(max(fits, 1)))))


def _peak(
    loss: TokenLoss,
    tokens: int,
    layout: RowLayout,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> int:
    """Peak memory, in bytes, of `one_pass`."""
    torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device]), autocast():
        one_pass(loss, tokens, layout, device)
    return torch.cuda.max_memory_allocated(device)


def one_pass(loss: TokenLoss, tokens: int, layout: RowLayout, device: torch.device) -> None:
    """A forward pass and, of a model that is trained, a backward pass, which begins without gradients. Nearly every
    token is a target, in rows that the model's positions allow."""
    length = min(_ROW, positions_of(loss.model) or _ROW)
    one = Example(ids=np.ones(length, np.int32), trained=np.arange(length) > 0)
    nll = loss(collate([row([one])] * (tokens // length), device, layout=layout)).nll
    if nll.requires_grad:
        nll.sum().backward()
    loss.zero_grad(set_to_none=True)
