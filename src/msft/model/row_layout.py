"""Chooses how the rows of a micro-batch are laid out: the cheapest layout that is proven (`isolation.py`) and that the
model itself passes a trial in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint, in_a_line
from msft.data.examples import Example
from msft.forward.batches import MicroBatch, RowLayout, collate
from msft.forward.runtime import undisturbed
from msft.forward.token_rows import row
from msft.model.isolation import attention_of, proven, twin_of, unfit, unmoved
from msft.model.model_parts import base_of, vocabulary_of
from msft.model.precision import narrow_buffers
from msft.model.readings import REFUSALS, Layout, Probe, laid_out
from msft.model.token_loss import TokenLoss

ALONE = [[4, 2, 5], [2, 5, 1, 3], [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 1]]
_FEW = Probe((2, 3, 5), ((3, (2, 1, 3)),))
"""What a model itself is tried on, which may be large: the thorough proof is its twin's."""


EXACT, ROUNDED = (1e-3, 1e-4), (2e-2, 5e-2)
"""The share, and nats, by which a likelihood of the model itself may differ from that of a single row, in fp32 and in
bf16. What is exact is the proof of its twin, in fp32."""


def fitting_layout(
    loss: TokenLoss, device: torch.device, longest: int | None = None, *, lengths: bool = False, rounds: bool = False
) -> Layout:
    """The cheapest layout that is proven for the model, and in which no likelihood changes with the tokens of other
    rows when the model itself is tried on a few of them.

    `longest`: no row of the run has more tokens (None: unknown). `lengths`: see `proven`. `rounds`: the model computes
    in bf16 here, so that its likelihoods are compared up to that. If rows are end to end, the
    model uses msft.model.attention or msft.model.rows_attention from here on. Raises ModelError where even single rows
    are not what the plain model computes.
    """
    model = base_of(loss.model)
    own = model.config._attn_implementation
    with undisturbed(loss, device), torch.no_grad():
        few = _FEW.within(vocabulary_of(model))
        _try(loss, device)
        others: list[str] = []
        for layout in proven(model, longest, device, lengths=lengths):
            model.set_attn_implementation(attention_of(layout.rows, own))
            found = _as_alone(loss, layout, few, device, ROUNDED if rounds else EXACT)
            if found is not None and unmoved(loss, layout, few, device, found):
                return replace(layout, why="; ".join(filter(None, (layout.why, *others))))
            others.append(f"{layout}: the model itself gives other likelihoods than those of single rows")
    model.set_attn_implementation(own)
    raise unfit(model, "on a few tokens, its own weights give other likelihoods than those of single rows")


def try_narrow(loss: TokenLoss, layout: RowLayout, device: torch.device) -> None:
    """Once the model's weights are bf16: makes sure that it computes with them.

    Buffers stay fp32 (see `narrow`), unless the model cannot compute so: then they get the types that transformers
    gives them. Raises ModelError where it cannot compute with those either.
    """
    batch = collate([row([examples(ALONE)[0]])], device, layout=layout)
    with undisturbed(loss, device), torch.no_grad():
        try:
            loss(batch)
            return
        except REFUSALS:
            narrow_buffers(loss.model)
        try:
            loss(batch)
        except REFUSALS as error:
            found = f"{type(base_of(loss.model)).__name__} does not compute in bf16: {in_a_line(error)}"
            fix = "set it to autocast or to fp32"
            raise ModelError(complaint(found, fix, field="model.precision")) from error


def _try(loss: TokenLoss, device: torch.device) -> None:
    """One forward pass of a few tokens. Raises ModelError where the model, or an adapter on it, cannot compute it."""
    try:
        loss.probe(collate([row([examples(ALONE)[0]])], device))
    except REFUSALS as error:
        name = type(base_of(loss.model)).__name__
        if isinstance(loss.model, PeftModel):
            found = f"{name} cannot be trained with this adapter: {type(error).__name__}: {error}"
            fix = "name only layers that an adapter fits, such as target_modules: [q_proj, v_proj]"
            raise ModelError(complaint(found, fix, field="peft")) from error
        found = f"{name} cannot be trained here: {type(error).__name__}: {error}"
        raise ModelError(complaint(found, "use another model", field="model.name_or_path")) from error


def _as_alone(
    loss: TokenLoss, layout: Layout, probe: Probe, device: torch.device, bound: tuple[float, float]
) -> list[Tensor] | None:
    """The model's likelihoods, or None if they are not, up to rounding, those of single rows."""
    alone = Layout(rows="padded", alone=True)
    try:
        found, expected = (laid_out(loss, each, probe.rows(), device, learned=False).nll for each in (layout, alone))
    except REFUSALS:
        return None
    same = torch.allclose(torch.cat(found), torch.cat(expected), rtol=bound[0], atol=bound[1], equal_nan=True)
    return found if same else None


def check_rows(model: PreTrainedModel | PeftModel, longest: int) -> None:
    """Raises ModelError where no layout is proven for the model, which may be on the meta device, or where its adapter
    does not fit a twin of it."""
    base, cpu = base_of(model), torch.device("cpu")
    next(proven(base, longest, cpu), None)
    if isinstance(model, PeftModel) and (made := twin_of(base, longest, cpu)) is not None:
        try:
            adapted = get_peft_model(made, replace(model.peft_config["default"], base_model_name_or_path=None))
        except ValueError:  # it names layers that the twin does not have
            return
        with torch.no_grad():
            _try(TokenLoss(adapted), cpu)


def gives(loss: TokenLoss, batch: MicroBatch, expected: Tensor) -> bool:
    """Whether the model accepts the micro-batch and returns these likelihoods."""
    try:
        found: Tensor = loss(batch).nll
    except REFUSALS:
        return False
    return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def examples(sequences: list[list[int]], every: int = 1) -> list[Example]:
    """Sequences of which every token, or the last of `every` tokens, is a target, but for the first three."""
    return [
        Example(
            ids=np.array(ids, np.int32),
            trained=(np.arange(len(ids)) >= min(3, len(ids) - 1)) & ((len(ids) - 1 - np.arange(len(ids))) % every == 0),
        )
        for ids in sequences
    ]
