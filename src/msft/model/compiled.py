"""torch.compile, layer by layer, so that one compilation serves all layers: for whole runs if configured, and on a GPU
while a step is recorded."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo.config
import torch._inductor.config
from peft import PeftModel
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint, in_a_line
from msft.forward.batches import MicroBatch
from msft.forward.runtime import undisturbed
from msft.model.model_parts import base_of, decoder_layers
from msft.model.token_loss import TokenLoss

_FIELD = "training.torch_compile"
SIZES = 256
"""Times at most that a process compiles a layer: for each size of each of a study's runs. Those of runs that are over
are dropped before they are half of it."""
ALIKE = 0.1
"""Nats, and share, by which compiled layers may differ from plain ones: many roundings in bf16. An error is larger."""


def compile_layers(model: PreTrainedModel | PeftModel, device: torch.device) -> None:
    """Compiles the model's layers in place, for any number of tokens. Raises ModelError where that is not possible."""
    of_cpu = device.type == "cpu"
    if not any(map(shutil.which, ("g++", "clang++", "c++") if of_cpu else ("gcc", "clang", "cc"))):
        found = f"compiling for a {'CPU' if of_cpu else 'GPU'} needs a C{'++' * of_cpu} compiler, and none was found"
        raise ModelError(complaint(found, f"install {'g++' if of_cpu else 'gcc'}, or leave it out", field=_FIELD))
    if not of_cpu and importlib.util.find_spec("triton") is None:
        found = "compiling for a GPU needs the package triton, which is not installed"
        raise ModelError(complaint(found, "install it, or leave it out", field=_FIELD))
    layers = decoder_layers(base_of(model))
    if not layers:
        found = f"the layers of {type(base_of(model)).__name__} are not found"
        raise ModelError(complaint(found, "leave it out for this model", field=_FIELD))
    for layer in layers:
        layer.compile(dynamic=True)


_dropped = 0
"""What this process had compiled when it last dropped it."""


def _make_room() -> None:
    """Drops what was compiled for models that are gone, which counts towards the limit too, while there is room."""
    global _dropped
    compiled = counters["stats"]["unique_graphs"]
    _dropped = min(_dropped, compiled)
    if compiled - _dropped > SIZES // 2:
        torch._dynamo.reset()
        _dropped = compiled


class CompiledLayers:
    """A model's layers, compiled where that works and gives the results of plain ones.

    `learns`: for training, once for each size of micro-batch, and only while a step is being recorded (`on`), as a new
    size costs seconds, and what is recorded runs without them. Else for scoring, once for all sizes. `said`: in words
    why they are not compiled; empty if they are. `batches`: micro-batches on which they are tried; for training, one of
    the smallest size. For scoring, several with other numbers of rows: a number that happens to be that of some weights
    is taken for one that never changes, until another is seen. So nothing is compiled later, and rounding does not
    depend on what was scored first.
    """

    def __init__(self, loss: TokenLoss, batches: Sequence[MicroBatch], *, learns: bool) -> None:
        self._compiled: dict[nn.Module, Any] = {}
        self.said = ""
        what = "layers" if learns else "layers that score"
        layers = decoder_layers(base_of(loss.model))
        if learns:
            _make_room()
        if not layers:
            self.said = f"{what} are not compiled: they are not found"
            return
        plain = [_reading(loss, batch, learns=learns) for batch in batches]
        for layer in layers:
            layer.compile(dynamic=not learns)
            self._compiled[layer], layer._compiled_call_impl = layer._compiled_call_impl, None
        try:
            with self.on():
                found = (_reading(loss, batch, learns=learns) for batch in batches)
                reason = next(filter(None, map(_differs, found, plain)), "")
        except Exception as error:  # whatever the compiler raises, without a C compiler for instance
            loss.zero_grad(set_to_none=True)
            reason = in_a_line(error)
        if reason:
            self._compiled.clear()
            self.said = f"{what} are not compiled: {reason}"

    @contextmanager
    def on(self) -> Iterator[None]:
        """Context in which the layers are the compiled ones."""
        for layer, compiled in self._compiled.items():
            layer._compiled_call_impl = compiled
        try:
            # Beyond torch's limit of eight sizes in a process, a layer would run plainly, and round otherwise, unsaid.
            limit = torch._dynamo.config.patch(recompile_limit=SIZES, fail_on_recompile_limit_hit=True)
            # Dropout as of plain layers, with which compiled ones are compared: it is a function of the step.
            with limit, torch._inductor.config.patch(fallback_random=True):
                yield
        finally:
            for layer in self._compiled:
                layer._compiled_call_impl = None


def _reading(loss: TokenLoss, batch: MicroBatch, *, learns: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The likelihoods of a micro-batch and, if it `learns`, the gradients of a weighted sum of them."""
    device = batch.ids.device
    if not learns:
        with undisturbed(loss, device), torch.no_grad():
            return loss(batch).nll, {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        nll = loss(batch).nll
        torch.autograd.backward((nll * torch.linspace(0.5, 1.5, len(nll), device=device)).sum())
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
        if not expected.isfinite().all():
            return f"the gradient of {name} is not finite without compilation either"
        away = (found[1][name].float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-12)
        if not away <= ALIKE:
            return f"the gradient of {name} differs by {float(away):.1%}"
    return ""
