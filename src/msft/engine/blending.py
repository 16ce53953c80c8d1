"""One state from several snapshots (`Segment.blend`): the weighted mean of their weights, or TIES."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from peft.utils.merge_utils import ties
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
        for name in _weights(state):
            one = _evaluated(state, name)
            if name in sums:
                sums[name].add_(one, alpha=share)
            else:
                sums[name] = one * share
    return State(tensors=sums)


@torch.no_grad()
def merged(
    parts: Sequence[tuple[State, float]],
    base: State,
    density: float,
    *,
    whole: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    own: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> State:
    """TIES (arXiv 2306.01708): a state like that of `blended`, from all parts at once.

    Of each tensor, the differences of the parts from `base` are cut to the largest `density` of each, and added to
    `base` as the mean of those that have the sign of their sum. A part with the mean share counts once. Of an adapter
    it is done for each factor. `whole`, `own`: of a parameter's name and a tensor of its shape, of which a process may
    hold some rows: all rows, and those of this process.
    """
    weights = torch.tensor([share * len(parts) for _, share in parts])
    made = {}
    for name in _weights(base):
        parameter = name.removeprefix(_WEIGHT)
        start, *each = (whole(parameter, _evaluated(state, name)).cpu() for state in (base, *(s for s, _ in parts)))
        made[name] = own(parameter, start + ties([one - start for one in each], weights, density))
    return State(tensors=made)


def _weights(state: State) -> list[str]:
    return [name for name in state.tensors if name.startswith(_WEIGHT)]


def _evaluated(state: State, name: str) -> Tensor:
    """A weight as it is evaluated, in fp32; the state's own tensor where it is one, so not to be changed."""
    tensor = state.tensors.get(_MEAN + name.removeprefix(_WEIGHT), state.tensors[name])
    return tensor.detach().to(device="cpu", dtype=torch.float32)
