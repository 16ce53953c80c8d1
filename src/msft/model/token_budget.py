"""How many tokens a micro-batch may hold (design 3.3): a fixed number on a CPU, what fits on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from msft.data.examples import Example
from msft.forward.batches import RowLayout, collate
from msft.forward.token_rows import row
from msft.model.memory import TRAINING, card_memory

ON_A_CPU = 3_072
"""Tokens. More are not faster on a CPU and need more memory for activations."""
LEAST, MOST = 1_024, 65_536
_ROW = 256


def token_budget(
    model: nn.Module,
    layout: RowLayout,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    fixed: int,
    share: float = TRAINING,
    *,
    times: int = 1,
) -> int:
    """Tokens of a micro-batch on this device; `model` maps a MicroBatch to TokenScores.

    `fixed`: bytes that training takes beside activations (`training_bytes`); `share`: see `share_of_training`;
    `times`: of how many micro-batches the activations must fit at the same time.

    On a GPU this is probed by a forward and backward pass of two micro-batches. The result is a power of two, computed
    from the device's total and not its free memory, so that a resumed run makes the same micro-batches.
    """
    if device.type != "cuda":
        return ON_A_CPU
    # The first takes what stays, such as the workspaces of products.
    peaks = [_peak(model, tokens, layout, device, autocast) for tokens in (LEAST, LEAST, 2 * LEAST)]
    return fitting(card_memory(device), fixed, times * (peaks[2] - peaks[1]), share)


def fitting(total: int, state: int, of_a_thousand: int, share: float = TRAINING) -> int:
    """The largest power of two of tokens whose activations fit beside `state` into a share of `total` bytes.

    `of_a_thousand`: bytes of the activations of LEAST tokens. The result is at least LEAST, even if memory may then run
    out, and at most MOST.
    """
    fits = LEAST * (share * total - state) / max(of_a_thousand, 1)
    return min(MOST, max(LEAST, 1 << int(np.log2(max(fits, 1)))))


def _peak(
    model: nn.Module,
    tokens: int,
    layout: RowLayout,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> int:
    """Peak memory, in bytes, of a forward and backward pass over rows in which nearly every token is a target, which
    begins without gradients."""
    one = Example(ids=np.ones(_ROW, np.int32), trained=np.arange(_ROW) > 0)
    batch = collate([row([one])] * (tokens // _ROW), device, layout=layout)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device]), autocast():
        model(batch).nll.sum().backward()
    model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated(device)
