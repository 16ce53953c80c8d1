"""What a model computes of rows: laid out in a micro-batch, or one by one; and made-up rows to compare the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from msft.data.examples import Example
from msft.forward.batches import ONE_EACH, RowLayout, collate
from msft.forward.runtime import Runtime
from msft.forward.token_rows import rows_of
from msft.model.token_loss import TokenLoss
from msft.model.twin import BORDER, LONGEST, SPECIAL, VOCABULARY, one_thread

Groups: TypeAlias = Sequence[Sequence[Example]]
"""Rows: each a sequence, or several that begin alike."""
LIKELIHOOD = 1e-4
"""Nats, and share, by which a likelihood in fp32 may differ from that of a single sequence: rounding."""
GRADIENT = 1e-3
"""Share of a parameter's largest gradient by which its gradient in fp32 may differ: rounding."""
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
        end_to_end = "rows end to end"
        said = {
            "flat": end_to_end,
            "lengths": end_to_end,
            "branches": "padded rows with branches",
            "padded": "padded rows",
        }[self.rows]
        return said if self.border is None else f"{said}, those above {self.border} tokens apart"


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
class Reading:
    """What a model computes of some rows."""

    nll: list[Tensor]
    """One per sequence: [targets] nats."""
    gradients: dict[str, Tensor]
    """Of the weighted sum of all, by parameter; a parameter without one is left out."""


@one_thread()
@torch.enable_grad()
def singly(made: PreTrainedModel, groups: Groups, device: torch.device) -> Reading:
    """Sequence by sequence, by the plain model."""
    made.zero_grad()
    nll = []
    for example in (example for group in groups for example in group):
        at = np.flatnonzero(example.trained)
        ids = torch.from_numpy(example.ids.astype(np.int64)).to(device)[None]
        logits = made(input_ids=ids[:, : at[-1]], use_cache=False).logits[0, at - 1]
        nll.append(functional.cross_entropy(logits.float(), ids[0, at], reduction="none"))
        torch.autograd.backward(_weighted(nll[-1]))
    return Reading([each.detach() for each in nll], _gradients(made))


def laid_out(loss: TokenLoss, layout: Layout, groups: Groups, device: torch.device, *, learned: bool = True) -> Reading:
    """Through the wrapped model, in the layout; without gradients unless `learned`."""
    border = None if layout.border is None else border_of(loss.model.config)
    loss.zero_grad()
    rows, of_row = rows_of(groups, apart=layout.rows in ONE_EACH, border=border)
    nll: list[Tensor] = [torch.empty(0)] * sum(map(len, groups))
    runtime = Runtime(device=device, max_tokens=layout.budget(_PLENTY), layout=layout.rows, border=border)
    for places in runtime.share_of(rows):
        assert places is not None
        batch = collate([rows[place] for place in places], device, layout=layout.rows)
        with torch.set_grad_enabled(learned):
            found = torch.split(loss(batch).nll, list(batch.counts))
            if learned:
                torch.autograd.backward([_weighted(each) for each in found])
        owners = np.concatenate([of_row[place] for place in places])
        for owner, each in zip(owners, found, strict=True):
            nll[owner] = each.detach()
    return Reading(nll, _gradients(loss.model))


def _weighted(nll: Tensor) -> Tensor:
    """A sum in which no two targets weigh the same, so that errors do not cancel."""
    return (nll * torch.linspace(0.5, 1.5, len(nll), device=nll.device)).sum()


def _gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def differs(found: Reading, expected: Reading) -> str:
    """In what way two readings of the same sequences differ by more than rounding, or empty if they do not."""
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
    """Made-up rows: single sequences, and rows of several sequences that begin alike."""

    lengths: tuple[int, ...]
    forks: tuple[tuple[int, tuple[int, ...]], ...]
    """Of each such row, the tokens of the common beginning, and of what follows it in each sequence."""
    vocabulary: int = VOCABULARY
    every: int = 1
    """Every such token is a target, the last included."""

    def within(self, vocabulary: int, every: int = 1) -> Probe:
        """The same rows for a model with fewer tokens, or with fewer targets."""
        return replace(self, vocabulary=min(self.vocabulary, vocabulary), every=every)

    def rows(self, change: str = "") -> list[list[Example]]:
        """`change` (one of CHANGES) replaces tokens; the lengths stay."""
        random = np.random.default_rng(0)
        special = min(SPECIAL, self.vocabulary - 2)

        def drawn(length: int) -> Any:
            return random.integers(special, self.vocabulary, length).astype(np.int32)

        groups = [[drawn(length + 1)] for length in self.lengths]
        trunks = [0] * len(groups)
        for trunk, tails in self.forks:
            begin = drawn(trunk)
            groups.append([np.concatenate([begin, drawn(more)]) for more in tails])
            trunks.append(trunk)
        made = []
        for place, group in enumerate(groups):
            for number, ids in enumerate(group):
                of_row = change in ("odd", "even") and (change == "odd") == (place % 2 == 1)
                of_branch = change == "branches" and number > 0
                at = 0 if of_row else trunks[place] if of_branch else len(ids)
                ids[at:] = special + (ids[at:] - special + 1) % (self.vocabulary - special)
            before = max(1, trunks[place])
            places = [np.arange(len(ids)) for ids in group]
            trained = [(at >= before) & ((len(at) - 1 - at) % self.every == 0) for at in places]
            made.append([Example(ids=ids, trained=t) for ids, t in zip(group, trained, strict=True)])
        return made


CHANGES = ("odd", "even", "branches")
"""Which tokens change: those of every second row, of all others, or of all branches of a row but the first."""
THOROUGH = Probe(
    (3, 7, 8, 9, 9, 13, 20, LONGEST - 1), ((BORDER + 3, (3, BORDER + 2, 2 * BORDER)), (4, (6, 3, 2 * BORDER, 5)))
)
"""Rows within, at and beyond one, two and three times BORDER, of up to LONGEST tokens; those with branches are longer,
and the sequences of one lie on both sides of BORDER."""
