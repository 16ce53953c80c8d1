"""Finds in what batches a model can generate: a trial on its shrunken twin."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.forward.runtime import RowsOfABatch, Runtime
from msft.model.attention import NAME
from msft.model.isolation import key_of, proven, twin_of
from msft.model.readings import REFUSALS, border_of, vocabulary_of
from msft.model.token_loss import TokenLoss
from msft.model.twin import SPECIAL, base_of
from msft.scoring.generation import Request, generate

PROMPTS, NEW_TOKENS = (3, 9, 12, 20, 6, 17, 8), (2, 14, 5, 8, 18, 11, 20)
"""Tokens of the prompts of a trial, and how many are generated: rows end at different places, within and beyond the
twin's windows, with at most `twin.LONGEST` tokens."""


class _Numbers:
    """Writes tokens as their numbers."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The numbers of the tokens, with blanks between them."""
        return " ".join(map(str, token_ids))


def fitting_decoding(model: PreTrainedModel | PeftModel, longest: int | None, device: torch.device) -> RowsOfABatch:
    """The cheapest way to share a batch in which the model's twin (`model/twin.py`) continues prompts exactly as it
    does without a cache, one by one.

    `longest`: no row of the run has more tokens (None: unknown); `model` may be on the meta device. Raises ModelError
    where it continues them otherwise in every way.
    """
    model = base_of(model)
    key = key_of(model, longest, device)
    if key not in _FITTING:
        _FITTING[key] = _tried(model, longest, device)
    return _FITTING[key]


_FITTING: dict[Any, RowsOfABatch] = {}
"""A process may open a model several times, and tries it once."""


def _tried(model: PreTrainedModel, longest: int | None, device: torch.device) -> RowsOfABatch:
    twin, layout = twin_of(model, longest, device), next(proven(model, longest, device), None)
    if twin is None:
        return "alone"
    if layout is not None and layout.rows == "flat":
        twin.set_attn_implementation(NAME)
    random = np.random.default_rng(0)
    requests = [
        Request(
            prompt=random.integers(SPECIAL, vocabulary_of(twin), length).astype(np.int32),
            ends=frozenset(),
            stop=(),
            max_new_tokens=new,
        )
        for length, new in zip(PROMPTS, NEW_TOKENS, strict=True)
    ]
    expected = [_plainly(twin, request, device) for request in requests]
    loss, border = TokenLoss(twin), border_of(twin.config)
    ways: tuple[RowsOfABatch, ...] = get_args(RowsOfABatch)
    for way in ways:
        try:
            runtime = Runtime(device=device, max_tokens=1 << 20, decoding=way, border=border)
            if generate(loss, requests, _Numbers(), runtime)[0] == expected:
                return way
        except REFUSALS:
            continue
    found = f"{type(model).__name__} cannot generate here: with its cache it continues prompts otherwise than without"
    raise ModelError(complaint(found, "score by loss, choice or exact_match", field="datasets.scorer"))


@torch.no_grad()
def _plainly(twin: PreTrainedModel, request: Request, device: torch.device) -> str:
    """The greedy continuation of one prompt, which is read anew for every token."""
    ids = torch.from_numpy(request.prompt.astype(np.int64)).to(device)[None]
    for _ in range(request.max_new_tokens):
        found = twin(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, found], 1)
    return _Numbers().decode(
        ids[0, len(request.prompt) :].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
