"""torch.compile, if configured: layer by layer, so that one compilation serves all layers."""

from __future__ import annotations

import shutil

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.data.examples import Example
from msft.forward.batches import collate, row
from msft.model.readings import vocabulary_of
from msft.model.token_loss import TokenLoss
from msft.model.twin import base_of

_FIELD = "training.torch_compile"
ALIKE = 0.05
"""Nats, and share, by which compiled layers may differ from plain ones: several roundings in bf16."""
_SIZES = (5, 17, 64, 3, 40)


def compile_layers(model: PreTrainedModel | PeftModel, device: torch.device) -> None:
    """Compiles the model's layers in place, for any number of tokens. Raises ModelError where that is not possible."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        mend = "install g++, or leave it out"
        raise ModelError(complaint("compiling for a CPU needs a C++ compiler, and none was found", mend, field=_FIELD))
    layers = _layers(model)
    if not layers:
        found = f"{type(base_of(model)).__name__} does not declare its layers"
        raise ModelError(complaint(found, "leave it out for this model", field=_FIELD))
    for layer in layers:
        layer.compile(dynamic=True)


def _layers(model: PreTrainedModel | PeftModel) -> list[nn.Module]:
    base = base_of(model)
    kinds = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in kinds]


def compile_if_the_same(loss: TokenLoss, device: torch.device) -> str:
    """Compiles the layers where that works and gives the likelihoods and gradients of the plain ones, up to rounding.

    Returns in words why they are not compiled; empty if they are.
    """
    layers = _layers(loss.model)
    if not layers:
        return "layers are not compiled: the model does not declare them"
    plain = _reading(loss, device)
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        reason = _differs(_reading(loss, device), plain)
    except Exception as error:  # whatever the compiler raises: without a C compiler, or for a layer that it cannot read
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if not reason:
        return ""
    for layer in layers:
        layer._compiled_call_impl = None
    return f"layers are not compiled: {reason}"


def _reading(loss: TokenLoss, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """The likelihoods of made-up rows, and the gradients of their sum."""
    random = np.random.default_rng(0)
    vocabulary = vocabulary_of(loss.model)
    rows = [
        row([Example(ids=random.integers(0, vocabulary, size).astype(np.int32), trained=np.arange(size) > 1)])
        for size in _SIZES
    ]
    batch = collate(rows, device, layout="lengths")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        nll = loss(batch).nll
        nll.sum().backward()
    found = {name: p.grad for name, p in loss.named_parameters() if p.grad is not None}
    loss.zero_grad(set_to_none=True)
    return nll.detach(), found


def _differs(found: tuple[Tensor, dict[str, Tensor]], plain: tuple[Tensor, dict[str, Tensor]]) -> str:
    """In what way two readings differ by more than rounding in the parameters' type, or empty if they do not."""
    if not torch.allclose(found[0], plain[0], rtol=ALIKE, atol=ALIKE):
        return f"a likelihood differs by {float((found[0] - plain[0]).abs().max()):.2g} nats"
    if found[1].keys() != plain[1].keys():
        return "other parameters have gradients"
    for name, expected in plain[1].items():
        away = (found[1][name].float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-12)
        if not away <= ALIKE:
            return f"the gradient of {name} differs by {float(away):.1%}"
    return ""
