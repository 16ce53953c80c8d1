"""Greedy decoding of any number of prompts: the texts do not depend on the batching."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msft.core.vocabulary import Task
from msft.data.extract import until
from msft.forward.batches import Continuation
from msft.forward.planner import deal
from msft.forward.runtime import Runtime, undisturbed
from msft.forward.token_rows import sides_of

ROOM = 4
"""A batch here may have this many times the tokens of a micro-batch: nothing is kept for a backward pass, only keys and
values."""
PRICE = 1.0
"""The overhead of a batch, as a share of its token budget: every new token reads all weights, however many rows there
are."""


class Decoder(Protocol):
    """The part of a tokenizer that turns tokens into text."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The text of some tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How a model's tokens become text, and which of them end it."""

    decoder: Decoder
    eos: frozenset[int]
    """Tokens that end a text in every sub-dataset."""
    taught: Mapping[Task, frozenset[int]] = field(default_factory=dict)
    """Tokens that the training examples of a sub-dataset end with, and that end a text there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt to continue, and where to end."""

    prompt: NDArray[np.int32]
    """[tokens]"""
    ends: frozenset[int]
    """Tokens that end the text and are not part of it."""
    stop: tuple[str, ...]
    """Texts that end the text and are not part of it."""
    max_new_tokens: int
    repeated: str = ""
    """The text that the first token repeats from the prompt; it is not part of the generated text."""

    @property
    def most(self) -> int:
        """The greatest length that the row can reach, in tokens."""
        return len(self.prompt) + self.max_new_tokens


def generate(
    model: nn.Module,
    requests: Sequence[Request],
    decoder: Decoder,
    runtime: Runtime,
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[str], int]:
    """Returns the text with which the model continues each prompt, and the number of tokens that it processed.

    `model` maps a Continuation to NextTokens. Each process decodes a share of the prompts and returns all texts. Their
    texts end at different times, so processes with a part of the model each decode all prompts together. `progress` is
    called with the number of prompts done so far.
    """
    if runtime.in_parts:
        runtime = replace(runtime, rank=0, world=1, total=lambda array: array)
    said = np.zeros((len(requests), max((request.max_new_tokens for request in requests), default=0)))
    lengths, room = [request.most for request in requests], ROOM * runtime.max_tokens
    hand = deal(lengths, room, runtime.world, PRICE, sides=sides_of(lengths, runtime.border))[runtime.rank]
    done = 0
    with undisturbed(model, runtime.device), torch.no_grad(), runtime.autocast():
        for places in hand:
            if places is None:
                continue
            # Rows that grow beyond the border are read anew there, each at a time of its own.
            beyond = runtime.border is not None and requests[places[0]].most > runtime.border
            for part in [[place] for place in places] if beyond or runtime.decoding == "alone" else [places]:
                spoken = _decode(model, [requests[place] for place in part], decoder, runtime)
                for place, tokens in zip(part, spoken, strict=True):
                    said[place, : len(tokens)] = np.array(tokens) + 1  # 0 means no token
            done += len(places)
            if progress is not None:
                progress(done * runtime.world)
    said = runtime.total(said)
    spoken = [(row[row > 0] - 1).astype(np.int64).tolist() for row in said]
    # The last token of each text is never an input.
    count = sum(len(request.prompt) + len(row) - 1 for request, row in zip(requests, spoken, strict=True))
    return [_text(row, request, decoder) for row, request in zip(spoken, requests, strict=True)], count


def start(prompts: Sequence[Sequence[int] | NDArray[np.int32]], device: torch.device) -> Continuation:
    """The prompts, padded on the left."""
    longest = max(map(len, prompts))
    ids = np.zeros((len(prompts), longest), np.int64)
    mask = np.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, longest - len(prompt) :] = prompt
        mask[number, longest - len(prompt) :] = 1
    seen = torch.from_numpy(mask).to(device)
    return Continuation(ids=torch.from_numpy(ids).to(device), mask=seen, positions=(seen.cumsum(-1) - 1).clamp(min=0))


def _decode(model: nn.Module, requests: Sequence[Request], decoder: Decoder, runtime: Runtime) -> list[list[int]]:
    """The new tokens of each row, including the one that ends it.

    A row beyond `runtime.border` must be the only one: where it crosses the border, it is read anew from its start.
    """
    reading = start([request.prompt for request in requests], runtime.device)
    spoken: list[list[int]] = [[] for _ in requests]
    done = [False] * len(requests)
    rows = list(range(len(requests)))

    def hear(tokens: Tensor) -> None:
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not done[row]:
                spoken[row].append(token)
                done[row] = _finished(spoken[row], requests[row], decoder)

    while True:
        tokens, cache = model(reading)
        hear(tokens)
        going = [at for at, row in enumerate(rows) if not done[row]]
        if not going:
            return spoken
        if runtime.steps is not None and reading.cache is None and runtime.border is None:
            most = max(request.max_new_tokens for request in requests)
            if (steps := runtime.steps(model, reading, tokens, cache, most)) is not None:
                while not all(done):
                    hear(steps.next([not each for each in done]))
                return spoken
        if runtime.border is not None and len(requests[0].prompt) + len(spoken[0]) == runtime.border + 1:
            reading = start([[*requests[0].prompt.tolist(), *spoken[0]]], runtime.device)
            continue
        mask_, positions = reading.mask, reading.positions[:, -1:]
        if len(going) < len(rows) and runtime.decoding == "dropped":
            keep = torch.tensor(going, device=runtime.device)
            cache.batch_select_indices(keep)
            tokens, mask_, positions = tokens[keep], mask_[keep], positions[keep]
            rows = [rows[at] for at in going]
        more = torch.ones_like(mask_[:, :1])
        positions = positions + 1
        if len(going) < len(rows):
            # A finished row that stays takes no more positions: there may be none, or they may be beyond a border.
            stays = torch.tensor([[int(done[row])] for row in rows], device=runtime.device)
            positions = positions - stays
        reading = Continuation(ids=tokens[:, None], mask=torch.cat([mask_, more], -1), positions=positions, cache=cache)


def _finished(tokens: Sequence[int], request: Request, decoder: Decoder) -> bool:
    if tokens[-1] in request.ends or len(tokens) == request.max_new_tokens:
        return True
    if not request.stop:
        return False
    # A token is at least one byte, so a stop sequence that was just completed lies within this many last tokens.
    most = max(len(stop.encode()) for stop in request.stop)
    tail = _decoded(tokens[-most:], decoder)
    if len(tokens) <= most:
        tail = tail.removeprefix(request.repeated)
    return any(stop in tail for stop in request.stop)


def _text(tokens: Sequence[int], request: Request, decoder: Decoder) -> str:
    end = next((at for at, token in enumerate(tokens) if token in request.ends), len(tokens))
    return until(_decoded(tokens[:end], decoder).removeprefix(request.repeated), request.stop)


def _decoded(tokens: Sequence[int], decoder: Decoder) -> str:
    # Special tokens are kept, so that a stop sequence may contain one.
    return decoder.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
