"""Finds in what batches a model can generate: a trial on its shrunken twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.forward.batches import Continuation, NextTokens
from msft.forward.runtime import RowsOfABatch, Runtime
from msft.model.attention import NAME
from msft.model.fixed_decoding import fixed_steps
from msft.model.isolation import once_per_twin, proven, twin_of
from msft.model.model_parts import base_of, vocabulary_of
from msft.model.readings import LIKELIHOOD, REFUSALS, border_of
from msft.model.token_loss import TokenLoss
from msft.model.twin import SPECIAL, one_thread
from msft.scoring.generation import Request, generate, start

PROMPTS, NEW_TOKENS = (3, 9, 12, 20, 6, 17, 8), (2, 14, 5, 8, 18, 11, 20)
"""Tokens of the prompts of a trial, and how many are generated: rows end at different places, within and beyond the
twin's windows, with at most `twin.LONGEST` tokens."""

FIXED_PROMPTS, FIXED_NEW_TOKENS = (3, 9, 7, 2), (17, 5, 9, 16)
"""The same for a trial on fixed arrays, which together are shorter than the twin's inert windows."""


def fitting_decoding(model: PreTrainedModel | PeftModel, longest: int | None, device: torch.device) -> RowsOfABatch:
    """The cheapest way to share a batch in which the model's twin (`model/twin.py`) gives every next token the
    likelihoods that it has without a cache, one by one.

    `longest`: no row of the run has more tokens (None: unknown); `model` may be on the meta device, and still has its
    own attention. Raises ModelError where the likelihoods are others in every way.
    """
    return _tried(base_of(model), longest, device)


@once_per_twin
@one_thread()
def _tried(model: PreTrainedModel, longest: int | None, device: torch.device) -> RowsOfABatch:
    made, plain = (twin_of(model, longest, device) for _ in range(2))
    layout = next(proven(model, longest, device), None)
    if made is None or plain is None:
        return "alone"
    if layout is not None and layout.rows == "flat":
        made.set_attn_implementation(NAME)
    random = np.random.default_rng(0)
    requests = [
        Request(
            prompt=random.integers(SPECIAL, vocabulary_of(made), length).astype(np.int32),
            ends=frozenset(),
            stop=(),
            max_new_tokens=new,
        )
        for length, new in zip(PROMPTS, NEW_TOKENS, strict=True)
    ]
    followed = _Followed(made, plain, requests)
    ways: tuple[RowsOfABatch, ...] = get_args(RowsOfABatch)
    for way in ways:
        runtime = Runtime(device=device, max_tokens=1 << 20, decoding=way, border=border_of(made.config))
        try:
            generate(followed, requests, _Numbers(), runtime)
        except REFUSALS:
            continue
        return way
    found = f"{type(model).__name__} cannot generate here: with its cache it continues prompts otherwise than without"
    raise ModelError(complaint(found, "score by loss, choice or exact_match", field="datasets.scorer"))


@once_per_twin
@one_thread()
def fixed_decoding(model: PreTrainedModel, longest: int | None, device: torch.device) -> bool:
    """Whether generation on fixed arrays (`model/fixed_decoding.py`) gives the model's twin, at every token, the
    likelihoods that it has without a cache, row by row. `model`: without its adapter, may be on the meta device."""
    made, plain = (twin_of(model, longest, device) for _ in range(2))
    layout = next(proven(model, longest, device), None)
    if made is None or plain is None or layout is None or layout.border is not None:
        return False
    if layout.rows == "flat":
        made.set_attn_implementation(NAME)
    try:
        return _same_on_fixed_arrays(made, plain, device)
    except REFUSALS:
        return False


@torch.no_grad()
def _same_on_fixed_arrays(made: PreTrainedModel, plain: PreTrainedModel, device: torch.device) -> bool:
    """Rows end at different steps. The texts are made up, as those of `_Followed`."""
    random = np.random.default_rng(1)
    rows = [random.integers(SPECIAL, vocabulary_of(made), length).tolist() for length in FIXED_PROMPTS]
    reading = start(rows, device)
    loss = TokenLoss(made)
    tokens, cache = loss(reading)
    steps = fixed_steps(loss, reading, tokens, cache, max(FIXED_NEW_TOKENS))
    if steps is None:
        return False
    for taken in range(1, max(FIXED_NEW_TOKENS)):
        going = [taken < new for new in FIXED_NEW_TOKENS]
        told = [_made_up(row, plain) for row in rows]
        steps.tokens.copy_(torch.tensor(told, device=device)[:, None])
        steps.next(going)
        assert steps.logits is not None
        for row, token, goes, logits in zip(rows, told, going, steps.logits, strict=True):
            row.append(token)
            if goes and not _alike(logits, plain, row):
                return False
    return True


def _made_up(row: Sequence[int], model: PreTrainedModel) -> int:
    return SPECIAL + (7 * sum(row) + 31 * len(row)) % (vocabulary_of(model) - SPECIAL)


def _alike(logits: Tensor, plain: PreTrainedModel, row: Sequence[int]) -> bool:
    """Whether [vocabulary] logits give the likelihoods that the model gives after the row, read alone and anew."""
    expected = plain(input_ids=torch.tensor([row], device=logits.device), use_cache=False).logits[0, -1]
    one, other = (each.float().log_softmax(-1) for each in (logits, expected))
    return torch.allclose(one, other, rtol=LIKELIHOOD, atol=LIKELIHOOD)


@dataclass
class _Texts:
    """A cache, and the rows that it is of."""

    cache: Any
    rows: list[list[int]]
    """All tokens of each row so far."""

    def batch_select_indices(self, indices: Tensor) -> None:
        self.cache.batch_select_indices(indices)
        self.rows = [self.rows[at] for at in indices.tolist()]


class _Followed(nn.Module):
    """A model in generation, held at every step against another that reads each row alone and anew.

    The texts are made up and not the model's own, which may repeat one token, whatever came before. Raises ValueError
    where a likelihood differs.
    """

    def __init__(self, made: PreTrainedModel, plain: PreTrainedModel, requests: list[Request]) -> None:
        super().__init__()
        self.loss, self.plain = TokenLoss(made), plain
        self._most = {tuple(request.prompt.tolist()): request.most for request in requests}
        self._logits = torch.empty(0)
        made.register_forward_hook(self._keep_logits)

    def _keep_logits(self, made: nn.Module, inputs: Any, output: Any) -> None:
        self._logits = output.logits[:, -1]

    def forward(self, reading: Continuation) -> NextTokens:
        """Made-up tokens, of which the model says how likely they are."""
        held = reading.cache
        if held is None:
            rows = [ids[seen > 0].tolist() for ids, seen in zip(reading.ids, reading.mask, strict=True)]
        else:
            rows = [[*row, token] for row, (token,) in zip(held.rows, reading.ids.tolist(), strict=True)]
        cache = None if held is None else held.cache
        given = Continuation(ids=reading.ids, mask=reading.mask, positions=reading.positions, cache=cache)
        cache = self.loss(given).cache
        for row, logits in zip(rows, self._logits, strict=True):
            # A finished row stays only for the others.
            if len(row) < self._room(row) and not _alike(logits, self.plain, row):
                raise ValueError("a likelihood differs")
        tokens = [_made_up(row, self.plain) for row in rows]
        return NextTokens(torch.tensor(tokens, device=reading.ids.device), _Texts(cache, rows))

    def _room(self, row: list[int]) -> int:
        """The most tokens of a row, which begins with its prompt."""
        return next(most for prompt, most in self._most.items() if tuple(row[: len(prompt)]) == prompt)


class _Numbers:
    """Writes tokens as their numbers."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The numbers of the tokens, with blanks between them."""
        return " ".join(map(str, token_ids))
