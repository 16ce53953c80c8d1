"""Forward passes over any number of sequences: the likelihoods do not depend on the batching."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msft.core.errors import UserError, complaint
from msft.data.examples import Example
from msft.forward.batches import END_TO_END, ONE_EACH, MicroBatch, RowLayout, TokenScores, collate, filler, per_sequence
from msft.forward.packed_weights import packed
from msft.forward.planner import deal
from msft.forward.token_rows import Row, rows_of, sides_of

RowsOfABatch: TypeAlias = Literal["dropped", "kept", "alone"]
"""How a batch of rows is continued when one of them is finished: it is dropped; it is kept until all are, as the
model's cache cannot drop it; or every row is a batch of its own."""


KEPT = 1 << 26
"""Bytes of micro-batches that are remembered at most."""


Piece: TypeAlias = tuple[MicroBatch | None, NDArray[np.int64], int]
"""A micro-batch, None where this process has no work while others do; the places of its sequences; its rows."""


class Steps(Protocol):
    """Generation after the first token."""

    def next(self, going: Sequence[bool]) -> Tensor:
        """[rows] the next token of each row that is going."""


class NotFiniteError(UserError):
    """The model's losses are NaN or infinite."""


def _alone(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Where and how forward passes run: the same for training and scoring."""

    device: torch.device
    max_tokens: int
    """Token budget of a micro-batch, padding included."""
    bf16: bool = False
    """Whether matrix products run in bfloat16 under autocast, over fp32 parameters."""
    layout: RowLayout = "padded"
    """The row layout that the model supports."""
    border: int | None = None
    """Sequences of up to this many tokens never share a micro-batch with longer ones, because the model computes each
    according to the longest beside it (longrope); None where no such length exists."""
    decoding: RowsOfABatch = "dropped"
    """How rows share a batch in generation."""
    steps: Callable[..., Steps | None] | None = None
    """Makes steps of generation on fixed arrays (`model/fixed_decoding.py`), from the model, the prompts, the tokens
    after them, the cache and the number of tokens to come; None where the cache grows."""
    packs: bool = False
    """Whether scoring uses packed weights (`forward/packed_weights.py`)."""
    layers: Callable[[], AbstractContextManager[None]] = nullcontext
    """Context in which the model's layers are those that score: on a GPU, compiled ones."""
    in_parts: bool = False
    """Whether the model is split over the processes, so that all must make the same passes."""
    rank: int = 0
    world: int = 1
    total: Callable[[NDArray[np.float64]], NDArray[np.float64]] = _alone
    """Returns the sum of an array over all processes, the same on each."""
    add_up: Callable[[Sequence[Tensor]], None] = lambda tensors: None
    """Replaces tensors by their sums over all processes."""

    def share_of(self, rows: Sequence[Row]) -> list[list[int] | None]:
        """The micro-batches of this process, as positions in `rows`; None where it has no work while others do."""
        sides = None if self.border is None else sides_of([one.reach for one in rows], self.border)
        lengths = [len(one) for one in rows]
        return deal(lengths, self.max_tokens, self.world, flat=self.layout in END_TO_END, sides=sides)[self.rank]

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceScores:
    """One number per sequence, the same on every process."""

    nll: NDArray[np.float64]
    """[sequences] summed over the targets, in nats."""
    targets: NDArray[np.int64]
    """[sequences]"""
    all_hit: NDArray[np.bool_]
    """[sequences] whether every target was the arg-max; False where not asked for."""
    lost: NDArray[np.float64]
    """[sequences] what rounding took from the logits of the targets, summed; 0 where not asked for."""
    tokens: int = 0
    """Real tokens that the model processed; a common prefix counts once."""

    def part(self, first: int, last: int) -> SequenceScores:
        """The scores of the sequences `first` to `last` (exclusive)."""
        cut = slice(first, last)
        return SequenceScores(
            nll=self.nll[cut], targets=self.targets[cut], all_hit=self.all_hit[cut], lost=self.lost[cut]
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """[sequences] nats per target."""
        return self.nll / np.maximum(self.targets, 1)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Context with the model in evaluation mode; afterwards its mode and the random state are as before."""
    training = model.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.eval()
        try:
            yield
        finally:
            model.train(training)


@contextmanager
def scoring(model: nn.Module, runtime: Runtime) -> Iterator[None]:
    """Context in which nothing is learned, with the layers that are fastest there.

    no_grad, not inference_mode: what a model caches in a forward pass must stay usable in training. Weights are cast
    once, if all micro-batches are computed within.
    """
    layers = packed(model, runtime.max_tokens) if runtime.packs else runtime.layers()
    with undisturbed(model, runtime.device), torch.no_grad(), runtime.autocast(), layers:
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The micro-batches of this process for some sequences."""

    groups: Sequence[Sequence[Example]]
    tokens: int
    """Those of all processes; a common prefix counts once."""
    batches: Iterable[Piece]


def prepare(
    groups: Sequence[Sequence[Example]], runtime: Runtime, *, hits: bool = False, exact: bool = False
) -> Prepared:
    """The micro-batches are made one by one, as they are asked for, and once."""
    rows, of_row = rows_of(groups, apart=runtime.layout in ONE_EACH, border=runtime.border)

    def made() -> Iterator[Piece]:
        for places in runtime.share_of(rows):
            if places is None:
                yield None, np.zeros(0, np.int64), 0
            else:
                part = [rows[place] for place in places]
                batch = collate(part, runtime.device, layout=runtime.layout, hits=hits, exact=exact)
                yield batch, np.concatenate([of_row[place] for place in places]), len(places)

    return Prepared(groups=groups, tokens=sum(map(len, rows)), batches=made())


class Preparations:
    """Remembers the micro-batches of the sequences that were scored last, if they take at most `KEPT` bytes: those of
    the validation items are the same at each evaluation."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._last: dict[tuple[bool, bool], Prepared] = {}

    def of(self, groups: Sequence[Sequence[Example]], *, hits: bool = False, exact: bool = False) -> Prepared:
        """As `prepare`. Groups are compared by identity."""
        asked = hits, exact
        last = self._last.get(asked)
        if last is not None and len(last.groups) == len(groups) and all(map(operator.is_, last.groups, groups)):
            return last
        self._last.clear()
        made = prepare(groups, self.runtime, hits=hits, exact=exact)
        return replace(made, batches=self._remembering(made, asked))

    def _remembering(self, made: Prepared, asked: tuple[bool, bool]) -> Iterator[Piece]:
        seen: list[Piece] = []
        size = 0
        for one in made.batches:
            size += 0 if one[0] is None else one[0].nbytes
            if size <= KEPT:
                seen.append(one)
            else:
                seen.clear()
            yield one
        if size <= KEPT:
            self._last[asked] = replace(made, batches=seen)


def sequence_scores(
    model: nn.Module,
    groups: Sequence[Sequence[Example]],
    runtime: Runtime,
    *,
    hits: bool = False,
    exact: bool = False,
    progress: Callable[[int], None] | None = None,
    known: Preparations | None = None,
) -> SequenceScores:
    """The likelihood of each sequence's targets, all groups in order; `model` maps a MicroBatch to TokenScores.

    The sequences of a group have a common prefix, which is computed once where the model supports it. `hits` asks for
    `all_hit`, `exact` for `lost`. `progress` is called with the number of rows done so far. `known`: remembers the
    micro-batches. Raises NotFiniteError.
    """
    asked = {"hits": hits, "exact": exact}
    prepared = prepare(groups, runtime, **asked) if known is None else known.of(groups, **asked)
    sequences = [example for group in groups for example in group]
    sums = np.zeros((3, len(sequences)))
    done = 0
    computed: list[tuple[NDArray[np.int64], tuple[int, ...], TokenScores]] = []
    with scoring(model, runtime):
        for batch, owners, rows in prepared.batches:
            if batch is None:
                model(filler(runtime.device, layout=runtime.layout))
                continue
            computed.append((owners, batch.counts, model(batch)))
            for span in batch.spans:
                span.kept.clear()  # masks, which may be larger than the micro-batch
            done += rows
            if progress is not None:
                progress(done * runtime.world)
    # At the end, so that a GPU is waited for once and not after every micro-batch.
    for owners, counts, scores in computed:
        sums[0, owners] = per_sequence(scores.nll.cpu().numpy(), counts)
        if scores.hits is not None:
            sums[1, owners] = per_sequence(scores.hits.cpu().numpy(), counts)
        if scores.lost is not None:
            sums[2, owners] = per_sequence(scores.lost.cpu().numpy(), counts)
    sums = runtime.total(sums)
    targets = np.array([example.targets for example in sequences], np.int64)
    if not np.isfinite(sums[0]).all():
        raise NotFiniteError(
            complaint(
                f"{int((~np.isfinite(sums[0])).sum())} of {len(sequences)} scored sequences have a likelihood that is "
                "NaN or infinite",
                "lower the learning rate, or check the model's weights",
            )
        )
    all_hit = (sums[1] == targets) & hits
    return SequenceScores(nll=sums[0], targets=targets, all_hit=all_hit, lost=sums[2], tokens=prepared.tokens)
