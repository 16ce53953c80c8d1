"""Proves in which layouts the rows of a micro-batch do not touch (design 3.14).

The proof runs on a shrunken twin of the model (`twin.py`), beyond whose windows, chunks and convolutions short rows
reach. In fp32, the likelihood of every sequence and the gradient of every parameter must be those of plain single
sequences, and no likelihood may change by a bit when the tokens of other rows change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, tee
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.data.examples import Example
from msft.forward.batches import RowLayout, collate, row
from msft.forward.planner import deal
from msft.model.attention import NAME
from msft.model.token_loss import TokenLoss
from msft.model.twin import BORDER, SPECIAL, VOCABULARY, depth, kinds, twin

Groups: TypeAlias = Sequence[Sequence[Example]]
"""Rows: each a sequence, or several that begin alike."""
LIKELIHOOD = 1e-4
"""Nats, and share, by which a likelihood in fp32 may differ from that of a single sequence: rounding."""
GRADIENT = 1e-3
"""Share of a parameter's largest gradient by which its gradient in fp32 may differ: rounding."""
EXPERTS = 1e-5
"""Nats, and share, by which a likelihood in fp32 may change with the tokens of other rows in a mixture of experts,
where the routing changes the sizes of matrix products; 0 in all other models."""
REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError)
"""What a model raises that does not take a layout."""
_PLENTY = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How rows are laid out."""

    rows: RowLayout
    border: int | None = None
    """Rows of up to this many tokens never share a micro-batch with longer ones; None: all may."""
    alone: bool = False
    """Whether every row is a micro-batch of its own."""
    why: str = ""
    """Why no cheaper layout is used, for people; empty for the cheapest."""

    def budget(self, tokens: int) -> int:
        """The token budget of a micro-batch that could hold `tokens`."""
        return 1 if self.alone else tokens

    def __str__(self) -> str:
        if self.alone:
            return "one row at a time"
        said = {"flat": "rows end to end", "branches": "padded rows with branches", "padded": "padded rows"}[self.rows]
        return said if self.border is None else f"{said}, those above {self.border} tokens apart"


def proven(model: PreTrainedModel, longest: int | None, device: torch.device) -> Iterator[Layout]:
    """The layouts in which the model's twin computes each row as if it were alone, cheapest first, proven as they are
    asked for.

    Where no twin can be made, padded rows, which only a trial of the model itself can confirm. `longest`: no row of
    the run has more tokens (None: unknown); `model` may be on the meta device, `device` is where it will run. Raises
    ModelError for a model that is not causal, or whose head is not found.
    """
    key = key_of(model, longest, device)
    if key not in _PROVEN:
        _PROVEN[key] = _prove(model, longest, device)
    _PROVEN[key], found = tee(_PROVEN[key])
    return found


def key_of(model: PreTrainedModel, longest: int | None, device: torch.device) -> Any:
    """Equal where a twin, and all that is proven of it, is equal."""
    fields = model.config.to_dict()
    for name in ("dtype", "torch_dtype", "_name_or_path", "transformers_version", "architectures"):
        fields.pop(name, None)
    shape = json.dumps(fields, sort_keys=True, default=str)
    return type(model), shape, model.config._attn_implementation, longest, device.type


_PROVEN: dict[Any, Iterator[Layout]] = {}
"""A process may open a model several times, and proves it once."""


def twin_of(model: PreTrainedModel, longest: int | None, device: torch.device) -> PreTrainedModel | None:
    """The shallowest twin with every kind of layer that the model has, or None if none can be made."""
    count = depth(model.config.get_text_config(decoder=True)) or 1
    found = kinds(model, count)
    wanted = set(found)
    first = max((found.index(kind) + 1 for kind in wanted), default=4)
    for layers in sorted({min(count, max(2, times * first)) for times in (1, 2)} | {count}):
        try:
            made = twin(model, layers, longest, device)
            with torch.no_grad():
                made(input_ids=torch.tensor([[SPECIAL, SPECIAL + 1]], device=device), use_cache=False)
        except Exception:  # whatever the model's own code raises where sizes do not fit
            continue
        if len(set(kinds(made, layers))) >= len(wanted):
            return made
    return None


def _prove(model: PreTrainedModel, longest: int | None, device: torch.device) -> Iterator[Layout]:
    made = twin_of(model, longest, device)
    if made is None:
        unproven = Layout(rows="padded", why="no small model of its configuration can be made to prove more")
        yield from (unproven, replace(unproven, alone=True))
        return
    loss = TokenLoss(made)
    if not _causal(made, device):
        found = f"{type(model).__name__} cannot be trained here: its likelihood of a token depends on later tokens"
        mend = "use a causal language model (of an encoder: is_decoder: true in its config.json)"
        raise ModelError(complaint(found, mend, field="model.name_or_path"))
    own = made.config._attn_implementation
    probe = THOROUGH.within(vocabulary_of(made))
    apart = _singly(made, probe.rows(), device)
    reasons: list[str] = []
    for layout in _candidates(model):
        made.set_attn_implementation(NAME if layout.rows == "flat" else own)
        if reason := _touches(loss, layout, probe, apart, device):
            reasons.append(f"{layout}: {reason}")
        else:
            yield replace(layout, why="; ".join(reasons))


def _candidates(model: PreTrainedModel) -> Iterator[Layout]:
    border = border_of(model.config)
    rows: RowLayout
    ours = model.config._attn_implementation in ("sdpa", "eager")  # an attention that the user chose is not replaced
    for rows in ("flat", "branches", "padded") if ours else ("branches", "padded"):
        yield Layout(rows=rows)
        if border is not None:
            yield Layout(rows=rows, border=border)
    yield Layout(rows="padded", alone=True)


def border_of(config: Any) -> int | None:
    """The length beyond which the rotary embedding of a whole micro-batch follows its longest row; None: it never
    does."""
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    if not {part.get("rope_type") for part in parts} & {"longrope", "dynamic"}:
        return None
    known = [part.get("original_max_position_embeddings") for part in parts]
    known += [getattr(text, name, None) for name in ("original_max_position_embeddings", "max_position_embeddings")]
    return next((int(border) for border in known if border), None)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a model computes of some rows."""

    nll: list[Tensor]
    """One per sequence: [targets] nats."""
    gradients: dict[str, Tensor]
    """Of the weighted sum of all, by parameter; a parameter without one is left out."""


@torch.no_grad()
def _causal(made: PreTrainedModel, device: torch.device) -> bool:
    """Whether no logit changes with later tokens."""
    vocabulary, cut = vocabulary_of(made), 2 * BORDER + 1
    ids = torch.arange(3 * BORDER, device=device)[None] % (vocabulary - 1)
    other = torch.cat([ids[:, :cut], ids[:, cut:] + 1], 1)
    first, second = (made(input_ids=each, use_cache=False).logits[0, :cut] for each in (ids, other))
    # Experts are found by all tokens together, which changes the sizes of matrix products.
    return torch.allclose(first, second, rtol=EXPERTS, atol=EXPERTS)


@torch.enable_grad()
def _singly(made: PreTrainedModel, groups: Groups, device: torch.device) -> _Reading:
    """Sequence by sequence, by the plain model."""
    made.zero_grad()
    nll = []
    for example in (example for group in groups for example in group):
        at = np.flatnonzero(example.trained)
        ids = torch.from_numpy(example.ids.astype(np.int64)).to(device)[None]
        logits = made(input_ids=ids[:, : at[-1]], use_cache=False).logits[0, at - 1]
        nll.append(functional.cross_entropy(logits.float(), ids[0, at], reduction="none"))
        torch.autograd.backward(_weighted(nll[-1]))
    return _Reading([each.detach() for each in nll], _gradients(made))


def laid_out(
    loss: TokenLoss, layout: Layout, groups: Groups, device: torch.device, *, learned: bool = True
) -> _Reading:
    """Through the wrapped model, in the layout; without gradients unless `learned`."""
    border = None if layout.border is None else border_of(loss.model.config)
    loss.zero_grad()
    if layout.rows == "padded":
        groups = [[example] for group in groups for example in group]
    rows = [row(group) for group in groups]
    first = np.cumsum([0, *map(len, groups)])
    nll: list[Tensor] = [torch.empty(0)] * int(first[-1])
    flat = layout.rows == "flat"
    (hand,) = deal([len(one) for one in rows], layout.budget(_PLENTY), 1, flat=flat, border=border)
    for places in hand:
        assert places is not None
        batch = collate([rows[place] for place in places], device, flat=flat)
        with torch.set_grad_enabled(learned):
            found = torch.split(loss(batch).nll, list(batch.counts))
            if learned:
                torch.autograd.backward([_weighted(each) for each in found])
        owners = np.concatenate([np.arange(first[place], first[place + 1]) for place in places])
        for owner, each in zip(owners, found, strict=True):
            nll[owner] = each.detach()
    return _Reading(nll, _gradients(loss.model))


def _weighted(nll: Tensor) -> Tensor:
    """A sum in which no two targets weigh the same, so that errors do not cancel."""
    return (nll * torch.linspace(0.5, 1.5, len(nll), device=nll.device)).sum()


def _gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _touches(loss: TokenLoss, layout: Layout, probe: Probe, apart: _Reading, device: torch.device) -> str:
    """In what way rows touch in this layout, or empty if they do not."""
    try:
        if reason := _differs(laid_out(loss, layout, probe.rows(), device), apart):
            return reason
    except REFUSALS as error:
        return f"the model raises {type(error).__name__} ({(str(error).splitlines() or ['no message'])[0]})"
    return "" if unmoved(loss, layout, probe, device) else "a likelihood changes with the tokens of other rows"


def _differs(found: _Reading, expected: _Reading) -> str:
    for mine, plain in zip(found.nll, expected.nll, strict=True):
        if not torch.allclose(mine, plain, rtol=LIKELIHOOD, atol=LIKELIHOOD):
            worst = float((mine - plain).abs().max())
            return f"a likelihood differs by {worst:.2g} nats from that of the row alone"
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients.values())
    for name in sorted(expected.gradients.keys() | found.gradients.keys()):
        one, two = (side.gradients.get(name) for side in (found, expected))
        if one is None or two is None:
            if float((two if one is None else one).abs().max()) > 0:  # type: ignore[union-attr]
                return f"{name} {'loses its' if one is None else 'gains a'} gradient"
        elif float((one - two).abs().max()) > GRADIENT * float(two.abs().max()) + 1e-6 * largest:
            worst = float((one - two).abs().max() / two.abs().max().clamp(min=1e-12))
            return f"the gradient of {name} differs by {worst:.2g} of its largest value"
    return ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Made-up rows, sorted by length: single sequences and one row of three sequences that begin alike."""

    lengths: tuple[int, ...]
    trunk: int
    tails: tuple[int, int, int]
    """Tokens of the common beginning, and of what follows it in each of the three."""
    vocabulary: int = VOCABULARY

    def within(self, vocabulary: int) -> Probe:
        """The same rows for a model with fewer tokens."""
        return replace(self, vocabulary=min(self.vocabulary, vocabulary))

    def rows(self, change: str = "") -> list[list[Example]]:
        """`change` (one of CHANGES) replaces tokens; the lengths stay."""
        random = np.random.default_rng(0)
        special = min(SPECIAL, self.vocabulary - 2)

        def drawn(length: int) -> Any:
            return random.integers(special, self.vocabulary, length).astype(np.int32)

        groups = [[drawn(length + 1)] for length in self.lengths]
        begin = drawn(self.trunk)
        groups.append([np.concatenate([begin, drawn(more)]) for more in self.tails])
        made = []
        for place, group in enumerate(groups):
            for number, ids in enumerate(group):
                of_row = change in ("odd", "even") and (change == "odd") == (place % 2 == 1)
                of_branch = change == "branches" and number > 0
                at = 0 if of_row else self.trunk if of_branch else len(ids)
                ids[at:] = special + (ids[at:] - special + 1) % (self.vocabulary - special)
            before = self.trunk if len(group) > 1 else 1
            made.append([Example(ids=ids, trained=np.arange(len(ids)) >= before) for ids in group])
        return made


def vocabulary_of(model: Any) -> int:
    """The number of tokens that the model knows."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


CHANGES = ("odd", "even", "branches")
"""Which tokens change: those of every second row, of all others, or of all branches of a row but the first."""
THOROUGH = Probe((3, 7, 8, 9, 9, 13, 20, 27), BORDER + 3, (3, BORDER + 2, 6))
"""Rows within, at and beyond one, two and three times BORDER."""


def unmoved(loss: TokenLoss, layout: Layout, probe: Probe, device: torch.device) -> bool:
    """Whether no likelihood changes when the tokens of other rows do: to the bit, or by EXPERTS where there are any."""
    bound = EXPERTS if _experts(loss) else 0.0

    def read(rows: Groups) -> list[Tensor]:
        return laid_out(loss, layout, rows, device, learned=False).nll

    plain = list(chain.from_iterable(probe.rows()))
    try:
        first = read(probe.rows())
        for change in CHANGES:
            changed = list(chain.from_iterable(probe.rows(change)))
            for before, after, one, two in zip(first, read(probe.rows(change)), plain, changed, strict=True):
                same = torch.allclose(before, after, rtol=bound, atol=bound, equal_nan=True)
                if np.array_equal(one.ids, two.ids) and not same:
                    return False
    except REFUSALS:
        return False
    return True


def _experts(loss: TokenLoss) -> bool:
    """Whether the model is a mixture of experts."""
    fields = vars(loss.model.config.get_text_config(decoder=True)).items()
    return any("experts" in name and isinstance(size, int) and size > 1 for name, size in fields)
