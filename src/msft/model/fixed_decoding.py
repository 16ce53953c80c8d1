"""Generation on arrays that stay where they are, of which a GPU records one step and repeats it.

A step of generation is hundreds of small kernels for one token of each row, which a GPU computes in a tenth of the time
that it takes to start them one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from msft.core.errors import UserError, in_a_line
from msft.forward.batches import Continuation
from msft.model.hardware import algorithms, recording
from msft.model.token_loss import TokenLoss

log = logging.getLogger("msft")
LEAST = 16
"""Tokens to come below which nothing is prepared: recording takes as long as some steps."""
WARM_UP = 2
"""Steps before one is recorded: kernels are chosen and memory is taken in them."""
ALIKE = 0.02
"""Largest difference of the logits of a recorded step from those of the same step without, as a share of the largest:
rounding in bf16."""


class FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, [rows, heads, tokens, width], with room for those of `room` tokens to come.

    `at`: [1] int64, where those of the next go.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int, at: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known, self._at = keys.shape[2], at
        self.keys, self.values = _longer(keys, room), _longer(values, room)
        self.is_initialized, self.dtype, self.device = True, keys.dtype, keys.device

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        # A write to one place is the same each time; the deterministic version, which sorts the places, is a dozen
        # kernels of a GPU.
        with algorithms(deterministic=False):
            self.keys.index_copy_(2, self._at, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, self._at, value_states.to(self.values.dtype))
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens of the prompts. What a recorded step asks is asked once, so it may not depend on more."""
        return self._known

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        assert self.keys is not None
        return self.keys.shape[2], 0


def fixed_cache(cache: Any, room: int, at: Tensor) -> DynamicCache | None:
    """The cache with room for so many tokens more; None if a layer keeps something else than all keys and values: those
    of a window that is full by then, or a state."""
    layers = getattr(cache, "layers", None)
    if not layers or not all(_keeps_all(layer, room) for layer in layers):
        return None
    made = DynamicCache()
    made.layers = []
    for layer in layers:
        made.layers.append(FixedLayer(layer.keys, layer.values, room, at))
        layer.keys = layer.values = None  # one layer after the other, so that little is held twice
    return made


def _keeps_all(layer: Any, room: int) -> bool:
    if layer.keys is None or type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        return False
    window = getattr(layer, "sliding_window", None)
    return window is None or layer.keys.shape[2] + room < window


def _longer(known: Tensor, room: int) -> Tensor:
    rows, heads, tokens, width = known.shape
    whole = known.new_zeros(rows, heads, tokens + room, width)
    whole[:, :, :tokens] = known
    return whole


class FixedSteps:
    """The tokens of a batch of rows after the first, one step at a time; on a GPU, a step is recorded as a CUDA graph.

    `refused`: in words, why none was recorded.
    """

    def __init__(self, loss: TokenLoss, reading: Continuation, tokens: Tensor, cache: Any, at: Tensor) -> None:
        """`reading`: the prompts; `tokens`: [rows] what follows them; `cache`: see `fixed_cache`."""
        self._loss, self._at, self.refused = loss, at, ""
        self.tokens = tokens[:, None].clone()
        """[rows, 1] what is read next."""
        self.logits: Tensor | None = None
        """[rows, vocabulary] of the latest step; the next may overwrite them."""
        known, whole = reading.mask.shape[1], cache.layers[0].keys.shape[2]
        visible = torch.zeros(len(tokens), 1, 1, whole, dtype=torch.bool, device=tokens.device)
        visible[:, 0, 0, :known] = reading.mask > 0
        self._reading = Continuation(
            ids=self.tokens, mask=visible, positions=reading.positions[:, -1:].clone(), cache=cache
        )
        self._going = torch.ones_like(self.tokens)
        self._were: Sequence[bool] = [True] * len(tokens)
        self._records, self._taken = tokens.is_cuda and loss.records_steps, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found: tuple[Tensor, Tensor] | None = None

    def next(self, going: Sequence[bool]) -> Tensor:
        """[rows] the next token of each row.

        A row that is not `going` is finished: it takes no more positions, as there may be none, and what it says is of
        no use.
        """
        if self._were != going:
            self._going.copy_(torch.tensor(going)[:, None])
            self._were = list(going)
        if self._records and self._taken == WARM_UP:
            found = self._recorded()
        else:
            found = self._compute() if self._graph is None else self._replayed()
        self._taken += 1
        self.logits = found[0]
        said = self._loss.most_likely(*found)
        self.tokens.copy_(said[:, None])
        return said

    def _compute(self) -> tuple[Tensor, Tensor]:
        """[rows, vocabulary] logits of the next token and the [rows, width] hidden states that they come from."""
        reading = self._reading
        reading.positions.add_(self._going)
        reading.mask.index_fill_(3, self._at, True)
        logits, states, _ = self._loss.last(reading)
        self._at.add_(1)
        return logits, states

    def _replayed(self) -> tuple[Tensor, Tensor]:
        assert self._graph is not None and self._found is not None
        self._graph.replay()
        return self._found

    def _recorded(self) -> tuple[Tensor, Tensor]:
        """Records a step, and takes it both ways. Where it cannot be recorded, or gives other numbers, this step and
        those that follow are computed one operation after the other."""
        self._records = False
        graph = torch.cuda.CUDAGraph()
        try:
            with recording(graph):
                self._found = self._compute()
        except UserError:
            raise
        except Exception as error:  # among them out of memory, and what cannot be recorded
            self._refuse(in_a_line(error))
            return self._compute()
        plain = self._compute()
        # The same step again: what it wrote is written once more.
        self._reading.positions.sub_(self._going)
        self._at.sub_(1)
        self._graph = graph
        logits, states = self._replayed()
        if bool((logits - plain[0]).abs().max() <= ALIKE * plain[0].abs().max()):
            return logits, states
        self._graph = None
        self._refuse("the recorded step gives other numbers")
        return plain

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self._loss.records_steps = False  # it would fail for each batch, and what a failure takes is not given back
        _tell(reason)


@cache
def _tell(reason: str) -> None:
    """Says once in a process why it generates more slowly than it could."""
    log.warning("each step of generation is computed without a CUDA graph (%s)", reason)


def fixed_steps(loss: Any, reading: Continuation, tokens: Tensor, cache: Any, room: int) -> FixedSteps | None:
    """The steps after the prompts, of `room` tokens at most; None where little would be gained, or the cache does not
    fit."""
    if room < LEAST or not isinstance(loss, TokenLoss):
        return None
    at = torch.full((1,), reading.mask.shape[1], device=tokens.device)
    fixed = fixed_cache(cache, room, at)
    return None if fixed is None else FixedSteps(loss, reading, tokens, fixed, at)
