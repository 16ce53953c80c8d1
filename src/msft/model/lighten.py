"""Makes a model do less work for the same likelihoods, as far as a trial shows that it can (`training.light`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msft.forward.batches import RowLayout, collate, row
from msft.forward.runtime import undisturbed
from msft.forward.swap import swapped
from msft.model.embedding import gather_directly
from msft.model.gated import lighten_gates
from msft.model.head import FusedHead
from msft.model.norms import lighten_norms
from msft.model.row_layout import ALONE, examples, gives
from msft.model.token_loss import TokenLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Lighter:
    """What may be made lighter; a benchmark takes single parts out."""

    norms: bool = True
    gates: bool = True
    last_mlp: bool = True
    head: bool = True


EVERYTHING = Lighter()


def lighten(
    loss: TokenLoss,
    layout: RowLayout,
    device: torch.device,
    *,
    bf16: bool,
    direct: bool,
    parts: Lighter = EVERYTHING,
) -> str:
    """Says what was made lighter, for the notes of a run; empty where nothing was.

    The MLP of the last layer leaves out tokens that nothing is predicted from; not with gradient checkpointing, which
    runs it again when the micro-batch is no longer known. The head is fused with the loss (`model/head.py`), and gated
    MLPs keep less (`model/gated.py`); under bf16 autocast, norms do too (`model/norms.py`). `direct`: gradients of
    the vocabulary's weights go past autograd, as they may where no other process waits for them.
    `msft.forward.swap.restore` takes the replaced layers back.
    """
    batch = collate([row([e]) for e in sorted(examples(ALONE), key=len)], device, flat=layout == "flat")
    with undisturbed(loss, device), torch.no_grad():
        expected: Tensor = loss(batch).nll
        if parts.last_mlp and loss.narrows and not loss.checkpoints:
            loss.narrow = True
            loss.narrow = gives(loss, batch, expected)
        if parts.head and isinstance(head := loss.head, nn.Linear) and FusedHead.fits(head) and loss.ends_with_head:
            loss.fused = FusedHead(head, direct=direct)
            if gives(loss, batch, expected):
                loss.fused.take_over()
            else:
                loss.fused = None
        if parts.head and direct:
            gather_directly(loss.embedding)
        if parts.gates:
            lighten_gates(loss.model)
        if parts.norms and bf16:
            lighten_norms(loss.model, lambda: loss(batch))
    return _in_words(loss)


def _in_words(loss: TokenLoss) -> str:
    counts = Counter(swapped(loss.model).values())
    said = [f"{count} x {why}" for why, count in counts.items()]
    if loss.narrow:
        said.append("the last MLP sees only tokens that something is predicted from")
    if not said:
        return ""
    return f"layers that do less work for the same results (training.light): {'; '.join(said)}"
