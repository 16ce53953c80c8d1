"""Makes a model do less work for the same likelihoods, where a probe at load time shows that it can
(`training.light`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from msft.forward.batches import MicroBatch, RowLayout, collate
from msft.forward.runtime import undisturbed
from msft.forward.swap import swapped
from msft.forward.token_rows import row
from msft.model.attention import PRODUCTS
from msft.model.attention_block import lighten_attention
from msft.model.decoder_layer import lighten_layers
from msft.model.embedding import gather_directly
from msft.model.gated import lighten_gates
from msft.model.head import FusedHead
from msft.model.isolation import last_mlp_skips
from msft.model.limits import positions_of
from msft.model.model_parts import base_of
from msft.model.norms import lighten_narrow_norms, lighten_norms
from msft.model.precision import Precision
from msft.model.row_layout import ALONE, examples, gives
from msft.model.token_loss import TokenLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Lighter:
    """What may be made lighter; benchmarks switch single parts off."""

    norms: bool = True
    attention: bool = True
    gates: bool = True
    last_mlp: bool = True
    head: bool = True


EVERYTHING = Lighter()
HEAD = Lighter(norms=False, attention=False, gates=False, last_mlp=False)
"""The head and its loss alone, and the embedding."""


def lighten(
    loss: TokenLoss,
    layout: RowLayout,
    device: torch.device,
    *,
    precision: Precision,
    direct: bool,
    longest: int | None = None,
    parts: Lighter = EVERYTHING,
) -> str:
    """Makes the model lighter in place; returns what was done, in words for the run's notes (empty if nothing was).

    The last layer's MLP skips tokens that predict nothing; not with gradient checkpointing, which recomputes the layer
    when the micro-batch is no longer available. The head is fused with the loss (`model/head.py`). Gated MLPs
    (`model/gated.py`) and, in bf16, norms (`model/norms.py`) keep less for the backward pass. In fp32 on a CPU,
    attention (`model/attention_block.py`) and layers (`model/decoder_layer.py`) become one operation each.

    On other devices only the head is fused: custom functions of many small operations take longer there, and where rows
    are laid out by their lengths nothing is changed, so that a step can be recorded.

    `direct`: gradients of the embedding and the head bypass autograd, which is correct in a single process only.
    `longest`: no row of the run has more tokens (None: unknown). `parts`: for benchmarks, which restore the
    replaced layers by `msft.forward.swap.restore`.
    """
    if layout == "lengths":
        return ""
    on_cpu = device.type == "cpu"
    # Few targets: what reads the outputs of other tokens, such as a convolution, shows where they are skipped.
    batch = collate([row([e]) for e in sorted(examples(ALONE, every=4), key=len)], device, layout=layout)
    with undisturbed(loss, device), torch.no_grad():
        expected: Tensor = loss(batch).nll
        if on_cpu and parts.last_mlp and loss.narrows and not loss.checkpoints:
            loss.narrow = True
            loss.narrow = gives(loss, batch, expected) and last_mlp_skips(base_of(loss.model), None, device)
        if parts.head and isinstance(head := loss.head, nn.Linear) and FusedHead.fits(head) and loss.ends_with_head:
            loss.fused = FusedHead(head, direct=direct)
            if gives(loss, batch, expected):
                loss.fused.take_over()
            else:
                loss.fused = None
        if on_cpu and parts.head and direct:
            gather_directly(loss.embedding)
        if on_cpu and parts.gates:
            lighten_gates(loss.model)
        if on_cpu and parts.attention and layout == "flat" and precision == "fp32":
            reach = _reach(loss, longest)
            rows = _rows_up_to(reach, device)
            lighten_attention(loss.model, lambda: loss(rows), reach)
            if not loss.checkpoints:
                lighten_layers(loss.model, lambda: loss(rows))
        if on_cpu and parts.norms and precision == "autocast":
            lighten_norms(loss.model, lambda: loss(batch))
        if on_cpu and parts.norms and precision == "mixed":
            lighten_narrow_norms(loss.model)
    return _in_words(loss)


def _reach(loss: TokenLoss, longest: int | None) -> int:
    """The longest row for which attention is computed by plain products, in a run whose rows have `longest` tokens."""
    return min(PRODUCTS, longest or PRODUCTS, positions_of(loss.model) or PRODUCTS)


def _rows_up_to(length: int, device: torch.device) -> MicroBatch:
    """A flat micro-batch of rows of several lengths, one with branches, and one of `length` tokens."""
    sequences = examples([*ALONE, (np.arange(length + 1) % 5 + 1).tolist()], every=4)
    groups = [*([one] for one in sequences), examples([[3, 2, 4, 1, 5], [3, 2, 4, 1, 2, 3]])]
    return collate(sorted(map(row, groups), key=len), device, layout="flat")


def _in_words(loss: TokenLoss) -> str:
    counts = Counter(swapped(loss.model).values())
    said = [f"{count} x {why}" for why, count in counts.items()]
    if loss.narrow:
        said.append("the last MLP skips tokens that predict nothing")
    if not said:
        return ""
    return f"layers that do less work for the same results (training.light): {'; '.join(said)}"
