"""The weighted mean of the weights of several snapshots (`Segment.blend`)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from msft.snapshots.state import State

_WEIGHT, _MEAN = "weight/", "mean/"


@torch.no_grad()
def blended(parts: Iterable[tuple[State, float]]) -> State:
    """A state whose weights are the weighted mean of those that are evaluated: the averaged ones where there are any.

    Summed in fp32, in the order of the parts, tensor by tensor: beside the sum, only one part is held at a time. Of an
    adapter it is the mean of each factor, not of the products. No moments, and the beginning of a roll-out.
    """
    sums: dict[str, Tensor] = {}
    for state, share in parts:
        for name in filter(lambda name: name.startswith(_WEIGHT), state.tensors):
            tensor = state.tensors.get(_MEAN + name.removeprefix(_WEIGHT), state.tensors[name])
            one = tensor.detach().to(device="cpu", dtype=torch.float32)
            if name in sums:
                sums[name].add_(one, alpha=share)
            else:
                sums[name] = one * share
    return State(tensors=sums)
