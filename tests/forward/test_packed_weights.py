"""Weights laid out in advance: the same scores, and afterwards the same model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_engine import tiny_model
from torch import nn

from msft.data.examples import Example
from msft.forward import packed_weights as packing
from msft.forward.packed_weights import can_pack, packed
from msft.forward.runtime import Runtime, sequence_scores
from msft.model.token_loss import TokenLoss

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(not can_pack(), reason="torch cannot pack bf16 weights here")


def examples() -> list[list[Example]]:
    draw = np.random.default_rng(3)
    return [[Example(ids=draw.integers(1, 40, n).astype(np.int32), trained=np.arange(n) > 2)] for n in (5, 9, 4, 14)]


@needs_packing
def test_scores_are_the_same_and_the_model_is_as_before() -> None:
    loss = TokenLoss(tiny_model())
    for module in loss.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    before = {name: (type(module), set(vars(module))) for name, module in loss.named_modules()}
    runtime = Runtime(device=CPU, max_tokens=20, bf16=True)
    plain = sequence_scores(loss, examples(), runtime)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        multiply = packing.multiply
        patch.setattr(packing, "multiply", lambda *given: seen.append(given) or multiply(*given))
        again = sequence_scores(loss, examples(), replace(runtime, packs=True))
    assert len(seen) >= 14, "seven layers of two blocks"
    np.testing.assert_allclose(again.nll, plain.nll, rtol=2e-2)
    assert {name: (type(module), set(vars(module))) for name, module in loss.named_modules()} == before


@needs_packing
def test_each_scoring_packs_the_weights_as_they_then_are() -> None:
    layer = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4, bias=False))
    given = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            plain = layer(given)
            with packed(layer, 3):
                torch.testing.assert_close(layer(given), plain, rtol=2e-2, atol=2e-2)
        nn.init.normal_(layer[0].weight)
        nn.init.normal_(layer[0].bias)


@needs_packing
def test_an_error_within_leaves_the_model_as_it_was() -> None:
    layer = nn.Sequential(nn.Linear(16, 8))
    with pytest.raises(ZeroDivisionError), packed(layer, 3):
        raise ZeroDivisionError
    assert type(layer[0]) is nn.Linear and not hasattr(layer[0], "_packed")


def test_functions_that_are_not_as_expected_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "multiply", lambda states, blocks, bias: states @ torch.ones(32, 48))
    assert not can_pack()

    def gone(*given: object) -> None:
        raise AttributeError("no such function")

    monkeypatch.setattr(packing, "pack", gone)
    assert not can_pack()
