"""Proves in which layouts the rows of a micro-batch do not touch (design 3.14).

The proof runs on a shrunken twin of the model (`twin.py`), beyond whose windows, chunks and convolutions short rows
reach. In fp32, the likelihood of every sequence and the gradient of every parameter must be those of plain single
sequences, and no likelihood may change by a bit when the tokens of other rows change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from itertools import chain, tee
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint, first_line
from msft.forward.batches import RowLayout
from msft.model import attention, rows_attention
from msft.model.model_parts import depth, vocabulary_of
from msft.model.readings import (
    CHANGES,
    REFUSALS,
    THOROUGH,
    Groups,
    Layout,
    Probe,
    Reading,
    border_of,
    differs,
    laid_out,
    singly,
)
from msft.model.token_loss import TokenLoss
from msft.model.twin import BORDER, kinds, one_thread, reads_a_row, twin

T = TypeVar("T")
EXPERTS = 1e-5
"""Nats, and share, by which a likelihood in fp32 may change with the tokens of other rows in a mixture of experts,
where the routing changes the sizes of matrix products; 0 in all other models."""


def proven(
    model: PreTrainedModel, longest: int | None, device: torch.device, *, lengths: bool = False
) -> Iterator[Layout]:
    """The layouts in which the model's twin computes each row as if it were alone, cheapest first, proven as they are
    asked for.

    Where no twin can be made, padded rows, which only a trial of the model itself can confirm. `longest`: no row of
    the run has more tokens (None: unknown); `model` may be on the meta device, `device` is where it will run.
    `lengths`: rows by their lengths come first, which is cheapest on a GPU. Raises ModelError for a model that is not
    causal, whose head is not found, or for which no layout is proven.
    """
    key = key_of(model, longest, device), lengths
    if key not in _PROVEN:
        _PROVEN[key] = _with_error(_prove(model, longest, device, lengths))
    _PROVEN[key], found = tee(_PROVEN[key])
    return map(_layout, found)


def _with_error(layouts: Iterator[Layout]) -> Iterator[Layout | ModelError]:
    """The layouts, and last the error that ends them: it is raised each time that they are asked for."""
    try:
        yield from layouts
    except ModelError as error:
        yield error


def _layout(found: Layout | ModelError) -> Layout:
    if isinstance(found, ModelError):
        raise found
    return found


def key_of(model: PreTrainedModel, longest: int | None, device: torch.device) -> Any:
    """Equal where a twin, and all that is proven of it, is equal."""
    fields = model.config.to_dict()
    for name in (
        "dtype", "torch_dtype", "_name_or_path", "transformers_version", "architectures", "quantization_config",
    ):  # fmt: skip
        fields.pop(name, None)
    shape = json.dumps(fields, sort_keys=True, default=str)
    # Layers may be of other kinds than those that the configuration names: a twin has the named ones.
    layers = tuple(kinds(model, depth(model.config.get_text_config(decoder=True)) or 1))
    return type(model), shape, layers, model.config._attn_implementation, longest, device.type


def once_per_twin(found: Callable[[PreTrainedModel, int | None, torch.device], T]) -> Callable[..., T]:
    """Decorator of what a twin shows: found once in a process, which may open a model several times. An error is found
    again."""
    known: dict[Any, T] = {}

    @wraps(found)
    def remembered(model: PreTrainedModel, longest: int | None, device: torch.device) -> T:
        key = key_of(model, longest, device)
        if key not in known:
            known[key] = found(model, longest, device)
        return known[key]

    return remembered


_PROVEN: dict[Any, Iterator[Layout | ModelError]] = {}
"""A process may open a model several times, and proves it once."""


@one_thread()
def twin_of(model: PreTrainedModel, longest: int | None, device: torch.device) -> PreTrainedModel | None:
    """The shallowest twin with every kind of layer that the model has, or None if none can be made."""
    count = depth(model.config.get_text_config(decoder=True)) or 1
    found = kinds(model, count)
    wanted = set(found)
    first = max((found.index(kind) + 1 for kind in wanted), default=4)
    for layers in sorted({min(count, max(2, times * first)) for times in (1, 2)} | {count}):
        try:
            made = twin(model, layers, longest, device)
            reads_a_row(made, device)
        except Exception:  # whatever the model's own code raises where sizes do not fit
            continue
        if len(set(kinds(made, layers))) >= len(wanted):
            return made
    return None


def _prove(model: PreTrainedModel, longest: int | None, device: torch.device, lengths: bool) -> Iterator[Layout]:
    made = twin_of(model, longest, device)
    if made is None:
        unproven = Layout(rows="padded", why="no small model of its configuration can be made to prove more")
        yield from (unproven, replace(unproven, alone=True))
        return
    loss = TokenLoss(made)
    if reason := _reads_on(made, device):
        found = f"{type(model).__name__} cannot be trained here: its likelihood of a token depends on later tokens"
        raise ModelError(complaint(found, reason, field="model.name_or_path"))
    own = made.config._attn_implementation
    probe = THOROUGH.within(vocabulary_of(made))
    apart = singly(made, probe.rows(), device)
    reasons: list[str] = []
    candidates = list(_candidates(model, lengths))
    del model  # this generator stays as long as the process, and the model should not
    for layout in candidates:
        made.set_attn_implementation(attention_of(layout.rows, own))
        if reason := _touches(loss, layout, probe, apart, device):
            reasons.append(f"{layout}: {reason}")
        else:
            yield replace(layout, why="; ".join(reasons))
    if len(reasons) == len(candidates):
        raise unfit(made, reasons[-1])


def unfit(model: PreTrainedModel, why: str) -> ModelError:
    """The error for a model that no layout fits."""
    found = f"{type(model).__name__} cannot be trained here: no layout of rows gives what it computes of single ones"
    return ModelError(complaint(f"{found} ({why})", "use another model", field="model.name_or_path"))


def attention_of(rows: RowLayout, own: str) -> str:
    """The name of the attention that computes rows in this layout; `own`: the model's."""
    return {"flat": attention.NAME, "lengths": rows_attention.NAME}.get(rows, own)


def _drops(config: Any) -> bool:
    """Whether attention weights are dropped out in training."""
    fields = vars(config.get_text_config(decoder=True)).items()
    return any("att" in name and "drop" in name and isinstance(share, float) and share > 0 for name, share in fields)


def _candidates(model: PreTrainedModel, lengths: bool) -> Iterator[Layout]:
    border = border_of(model.config)
    rows: RowLayout
    ours = model.config._attn_implementation in ("sdpa", "eager")  # an attention that the user chose is not replaced
    if ours and lengths and border is None and not _drops(model.config):
        yield Layout(rows="lengths")
    for rows in ("flat", "branches", "padded") if ours else ("branches", "padded"):
        yield Layout(rows=rows)
        if border is not None:
            yield Layout(rows=rows, border=border)
    yield Layout(rows="padded", alone=True)


@torch.no_grad()
def _reads_on(made: PreTrainedModel, device: torch.device) -> str:
    """What to do about a model some of whose logits change with later tokens; empty for a causal one."""
    config: Any = made.config
    if config.model_type == "big_bird" and config.attention_type == "block_sparse":
        # In rows of many blocks only, which are longer than those of a proof.
        return "set attention_type: original_full in its config.json"
    vocabulary, cut = vocabulary_of(made), 2 * BORDER + 1
    ids = torch.arange(3 * BORDER, device=device)[None] % (vocabulary - 1)
    other = torch.cat([ids[:, :cut], ids[:, cut:] + 1], 1)
    first, second = (made(input_ids=each, use_cache=False).logits[0, :cut] for each in (ids, other))
    # Experts are found by all tokens together, which changes the sizes of matrix products.
    if torch.allclose(first, second, rtol=EXPERTS, atol=EXPERTS):
        return ""
    return "use a causal language model (of an encoder: is_decoder: true in its config.json)"


@one_thread()
def _touches(loss: TokenLoss, layout: Layout, probe: Probe, apart: Reading, device: torch.device) -> str:
    """In what way rows touch in this layout, or empty if they do not."""
    try:
        if reason := differs(laid_out(loss, layout, probe.rows(), device), apart):
            return reason
    except REFUSALS as error:
        return f"the model raises {type(error).__name__} ({first_line(error)})"
    return "" if unmoved(loss, layout, probe, device) else "a likelihood changes with the tokens of other rows"


@once_per_twin
@one_thread()
def last_mlp_skips(model: PreTrainedModel, longest: int | None, device: torch.device) -> bool:
    """Whether the last MLP of the model's twin can skip tokens that predict nothing, because nothing else reads their
    outputs (a convolution after it would)."""
    made = twin_of(model, longest, device)
    if made is None or not (loss := TokenLoss(made)).narrows:
        return False
    loss.narrow = True
    rows = THOROUGH.within(vocabulary_of(made), every=4).rows()
    alone = Layout(rows="padded", alone=True)
    return not differs(laid_out(loss, alone, rows, device), singly(made, rows, device))


def unmoved(
    loss: TokenLoss, layout: Layout, probe: Probe, device: torch.device, first: Sequence[Tensor] | None = None
) -> bool:
    """Whether no likelihood changes when the tokens of other rows do: to the bit, or by EXPERTS where there are any.

    `first`: the likelihoods of the probe's rows, if they have been read without gradients.
    """
    bound = EXPERTS if _experts(loss) else 0.0

    def read(rows: Groups) -> list[Tensor]:
        return laid_out(loss, layout, rows, device, learned=False).nll

    plain = list(chain.from_iterable(probe.rows()))
    try:
        first = read(probe.rows()) if first is None else first
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
