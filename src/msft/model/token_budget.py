"""How many tokens a micro-batch may hold (design 3.3): best on a CPU, what fits on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from msft.data.examples import Example
from msft.forward.batches import RowLayout, collate, row

ON_A_CPU = 3_072
"""Beyond this a CPU gains nothing, and activations grow."""
LEAST, MOST = 1_024, 65_536
SHARE = 0.6
"""Of a GPU's memory that a run may take: the allocator's holes, generation's cache and others need the rest."""
_ROW = 256


def token_budget(
    model: nn.Module, layout: RowLayout, device: torch.device, autocast: Callable[[], AbstractContextManager[object]]
) -> int:
    """Tokens of a micro-batch on this device; `model` maps a MicroBatch to TokenScores.

    On a GPU two micro-batches are run forward and backward on trial. The answer is a power of two from the device's
    whole memory, not from what others leave of it, so that a resumed run cuts its batches as the first one did.
    """
    if device.type != "cuda":
        return ON_A_CPU
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Gradients and Adam's two moments, in fp32, beside the weights themselves.
    state = 3 * sum(weight.nbytes for weight in weights) + sum(parameter.nbytes for parameter in model.parameters())
    peaks = [_peak(model, tokens, layout, device, autocast) for tokens in (LEAST, 2 * LEAST)]
    for weight in weights:
        weight.grad = None
    total = torch.cuda.get_device_properties(device).total_memory
    return fitting(total, state, peaks[1] - peaks[0])


def fitting(total: int, state: int, of_a_thousand: int) -> int:
    """The largest power of two of tokens whose activations fit beside `state` into SHARE of `total` bytes.

    `of_a_thousand`: bytes of the activations of LEAST tokens. Never fewer than LEAST, where memory may then run out,
    and never more than MOST.
    """
    fits = LEAST * (SHARE * total - state) / max(of_a_thousand, 1)
    return min(MOST, max(LEAST, 1 << int(np.log2(max(fits, 1)))))


def _peak(
    model: nn.Module,
    tokens: int,
    layout: RowLayout,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> int:
    """Bytes at the height of a forward and backward pass over rows of which nearly every token is trained."""
    one = Example(ids=np.ones(_ROW, np.int32), trained=np.arange(_ROW) > 0)
    batch = collate([row([one])] * (tokens // _ROW), device, flat=layout == "flat")
    torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device]), autocast():
        model(batch).nll.sum().backward()
    return torch.cuda.max_memory_allocated(device)
