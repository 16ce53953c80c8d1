"""Micro-batches as tensors.

A row holds one sequence, or several with a common prefix (the options of a choice): the prefix once, then one branch
for each sequence. Every token attends to the prefix and its own branch, at the positions that it would have alone, so
that the likelihoods are those of separate sequences, with far fewer tokens.

A sequence ends with the last token that predicts a target: its last target is never an input. Rows are padded to the
longest or, where the model supports it, concatenated without padding (flat); then attention alone separates them, span
by span.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msft.data.examples import Example
from msft.forward.planner import micro_batches
from msft.forward.token_rows import Row, row

RowLayout: TypeAlias = Literal["padded", "branches", "flat", "lengths"]
"""How rows are laid out: padded, one sequence each; padded, with branches; concatenated without padding, with branches,
attention being computed span by span; or concatenated, one sequence each, attention being told the rows' lengths."""
END_TO_END = ("flat", "lengths")
"""The layouts without padding."""
ONE_EACH = ("padded", "lengths")
"""The layouts in which each row holds one sequence."""
SPAN_PRICE = {"cpu": 64}
OTHER_SPAN_PRICE = 2_048
"""The overhead of a span (kernel launches), in tokens of attention: on a CPU, and elsewhere."""


class Lengths(NamedTuple):
    """Where the rows of a micro-batch begin and end."""

    ends: Tensor
    """[rows + 1] int32: 0, then the cumulative lengths; the last is the number of tokens. Rows may be empty."""
    longest: int
    """No row is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows of similar length in a flat micro-batch, for which attention is computed at once."""

    start: int
    stop: int
    """The flat positions of its tokens are `start` to `stop` (exclusive)."""
    rows: int
    longest: int
    slots: Tensor | None
    """[stop - start] int64: the index of each token in rows x longest; None if all rows are that long."""
    sees: Tensor | None
    """[rows, longest, longest] bool: which token (second axis) attends to which (third); None: causal."""
    positions: Tensor | None = None
    """[rows, longest] int64: the position of each token in its own sequence; None: 0, 1, 2, ..."""
    kept: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)
    """The masks that attention computed from `sees` in one layer, for the other layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows padded on the right or concatenated (flat), and where their targets are, row by row (row-major)."""

    ids: Tensor
    """[rows, longest] int64; flat: [1, tokens]"""
    mask: Tensor | None
    """[rows, longest] int64, 1 on real tokens; with branches [rows, 1, longest, longest] bool, True where a token
    (third axis) attends to another (fourth); None if nothing is padded."""
    positions: Tensor | None
    """Of the shape of `ids`, with branches or flat; None: 0, 1, 2, ..."""
    spans: tuple[Span, ...] = ()
    """If flat: spans that cover all tokens, in order."""
    lengths: Lengths | None = None
    """In the layout `lengths`: where the rows are. Then each row holds one sequence."""
    read: Tensor
    """[predicting tokens] int64: their flat positions in `ids`, ascending. The first targets of a choice's options are
    predicted by the same token."""
    rows: Tensor
    """[targets] int64: the index in `read` of the token that predicts each target."""
    targets: Tensor
    """[targets] int64: the tokens to predict."""
    counts: tuple[int, ...]
    """Number of targets of each sequence, in order."""
    hits: bool = False
    """Whether to return for each target if it was the arg-max."""
    exact: bool = False
    """Whether to return what rounding took from the logit of each target."""
    top: int = 0
    """How many of the most likely tokens to return at each target, in place of its likelihood; 0: none."""

    @property
    def width(self) -> int:
        """In the layout `lengths`, how many targets each token that predicts has, so that no shape depends on them: one
        or, where they are soft, several. 0 in other layouts."""
        return 0 if self.lengths is None else len(self.targets) // max(1, len(self.read))

    @property
    def nbytes(self) -> int:
        tensors = [self.ids, self.mask, self.positions, self.read, self.rows, self.targets]
        tensors += [] if self.lengths is None else [self.lengths.ends]
        tensors += [tensor for span in self.spans for tensor in (span.slots, span.sees, span.positions)]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class TokenScores(NamedTuple):
    """What the wrapped model returns for a micro-batch."""

    nll: Tensor
    """[targets] float32, negative log-likelihood in nats."""
    hits: Tensor | None
    """[targets] bool, whether each target was the arg-max; None unless the micro-batch asks for it."""
    lost: Tensor | None = None
    """[targets] float32, the fp32 logit of each target minus the one that `nll` was computed from, which may be bf16;
    None unless the micro-batch asks for it."""


class Predicted(NamedTuple):
    """What the wrapped model returns for a micro-batch that asks for the most likely tokens."""

    tokens: Tensor
    """[targets, top] int64, the most likely first."""
    odds: Tensor
    """[targets, top] float32, their probabilities."""


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of these values, without waiting for what a GPU computes."""
    made = torch.from_numpy(array)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def collate(
    rows: Sequence[Row],
    device: torch.device,
    *,
    layout: RowLayout = "padded",
    hits: bool = False,
    exact: bool = False,
) -> MicroBatch:
    """The micro-batch of these rows, in order; flat ones must be sorted by length. `padded`: with branches where a row
    has some."""
    longest = max(map(len, rows))
    starts = np.cumsum([0, *map(len, rows)])[:-1] if layout in END_TO_END else np.arange(len(rows)) * longest
    before = np.concatenate([one.before + start for one, start in zip(rows, starts, strict=True)])

    read, of_target = np.unique(before, return_inverse=True)

    here = partial(on_device, device=device)

    if layout == "lengths":
        fields = _by_lengths(rows, here, device)
    else:
        fields = _end_to_end(rows, here, device) if layout == "flat" else _padded(rows, longest, here)
    return MicroBatch(
        **fields,
        read=here(read),
        rows=here(of_target),
        targets=here(np.concatenate([one.targets for one in rows]).astype(np.int64)),
        counts=tuple(count for one in rows for count in one.counts),
        hits=hits,
        exact=exact,
    )


def _padded(rows: Sequence[Row], longest: int, here: Callable[[NDArray[Any]], Tensor]) -> dict[str, Any]:
    ids = np.zeros((len(rows), longest), np.int64)
    real = _real(rows, longest)
    ids[real] = np.concatenate([one.ids for one in rows])
    mask, positions = None, None
    if any(one.branches for one in rows):
        mask = here(_sees(rows, longest)[:, None])
        positions = here(_positions(rows, longest, real))
    elif not real.all():
        mask = here(real.astype(np.int64))
    return {"ids": here(ids), "mask": mask, "positions": positions}


def _end_to_end(rows: Sequence[Row], here: Callable[[NDArray[Any]], Tensor], device: torch.device) -> dict[str, Any]:
    lengths = [len(one) for one in rows]
    assert lengths == sorted(lengths), "flat rows must be sorted by length"
    price = SPAN_PRICE.get(device.type, OTHER_SPAN_PRICE)
    spans, start = [], 0
    for places in micro_batches(lengths, sum(lengths), price / sum(lengths)):
        part = [rows[place] for place in places]
        longest, stop = len(part[-1]), start + sum(map(len, part))
        real = _real(part, longest)
        branches = any(one.branches for one in part)
        spans.append(
            Span(
                start=start,
                stop=stop,
                rows=len(part),
                longest=longest,
                slots=None if real.all() else here(np.flatnonzero(real)),
                sees=here(_sees(part, longest)) if branches else None,
                positions=here(_positions(part, longest, real)) if branches else None,
            )
        )
        start = stop
    return {**_tokens(rows, here), "mask": no_mask(device), "spans": tuple(spans)}


def _by_lengths(rows: Sequence[Row], here: Callable[[NDArray[Any]], Tensor], device: torch.device) -> dict[str, Any]:
    assert not any(one.branches for one in rows), "each row holds one sequence"
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return {**_tokens(rows, here), "mask": no_mask(device), "lengths": Lengths(here(ends), max(map(len, rows)))}


def _tokens(rows: Sequence[Row], here: Callable[[NDArray[Any]], Tensor]) -> dict[str, Any]:
    ids = np.concatenate([one.ids for one in rows]).astype(np.int64)
    positions = np.concatenate([one.positions for one in rows])
    return {"ids": here(ids[None]), "positions": here(positions[None])}


def no_mask(device: torch.device) -> Tensor:
    """What keeps a model from making a mask of its own, where attention knows the rows: a mask of four axes."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def _real(rows: Sequence[Row], longest: int) -> NDArray[np.bool_]:
    """[rows, longest] True on real tokens."""
    real: NDArray[np.bool_] = np.arange(longest) < np.array([len(one) for one in rows])[:, None]
    return real


def _positions(rows: Sequence[Row], longest: int, real: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[rows, longest] the position of each token in its own sequence, 0 on padding."""
    positions = np.zeros((len(rows), longest), np.int64)
    positions[real] = np.concatenate([one.positions for one in rows])
    return positions


def _sees(rows: Sequence[Row], longest: int) -> NDArray[np.bool_]:
    """[rows, longest, longest] which token (second axis) attends to which (third)."""
    branch = np.full((len(rows), longest), -1)
    for number, one in enumerate(rows):
        branch[number, : len(one)] = one.branch
    seeing, seen = branch[:, :, None], branch[:, None, :]
    sees: NDArray[np.bool_] = np.tri(longest, dtype=np.bool_) & ((seen == 0) | (seen == seeing))
    # Padding attends to the first token: the softmax of a token that attends to nothing would be NaN.
    sees[:, :, 0] |= seeing[:, :, 0] == -1
    return sees


def filler(device: torch.device, *, layout: RowLayout = "padded") -> MicroBatch:
    """A micro-batch for a process that has no work while the others do."""
    one = row([Example(ids=np.zeros(2, np.int32), trained=np.array([False, True]))])
    return collate([one], device, layout=layout)


def per_sequence(values: NDArray[Any], counts: Sequence[int]) -> NDArray[np.float64]:
    """[sequences] the sum of each sequence's values, `counts` of them in order; 0 for a sequence without any."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(owners, weights=values, minlength=len(counts)).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """Input of the wrapped model for the next token of each row: the prompts first, then one token at a time."""

    ids: Tensor
    """[rows, new tokens] int64, padded on the left."""
    mask: Tensor
    """[rows, all tokens so far] int64, 0 on padding; with a cache of fixed size [rows, 1, 1, its tokens] bool."""
    positions: Tensor
    """[rows, new tokens] int64"""
    cache: Any = None
    """The model's key-value cache of all earlier tokens; None at the start."""


class NextTokens(NamedTuple):
    """What the wrapped model returns for a continuation."""

    tokens: Tensor
    """[rows] int64, the most likely next token."""
    cache: Any
