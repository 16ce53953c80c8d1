"""Attention and whole layers as one operation: the same bits, far fewer operations, and only where both are known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_engine import VOCABULARY, tiny_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from msft.data.examples import Example
from msft.forward.batches import MicroBatch, collate
from msft.forward.swap import restore, swapped
from msft.forward.token_rows import row
from msft.model import attention_block, decoder_layer
from msft.model.lighten import Lighter, lighten
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 40,
}  # fmt: skip
KINDS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)),
}


def made(kind: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """Every parameter drawn, biases and norms too, so that none is without effect."""
    model = kind()
    draw = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=draw) + ("norm" in name))
    return model


def loss_of(model: PreTrainedModel, *, attention: bool = True) -> TokenLoss:
    """The lightened model, with or without what this page tests."""
    loss = TokenLoss(model)
    parts = Lighter(attention=attention)
    lighten(loss, fitting_layout(loss, CPU).rows, CPU, precision="fp32", direct=True, parts=parts)
    return loss.train()


def counts(loss: TokenLoss) -> tuple[int, int]:
    """How many attentions, and how many layers, are one operation."""
    names = list(swapped(loss.model).values())
    return names.count(attention_block.WHY), names.count(decoder_layer.WHY)


def example(length: int, targets: int, first: int = 1) -> Example:
    ids = ((np.arange(length) * 7 + first) % VOCABULARY).astype(np.int32)
    return Example(ids=ids, trained=np.arange(length) >= length - targets)


def batch(*lengths: int) -> MicroBatch:
    """Rows of these lengths, and one with branches."""
    options = [[8, 9, 10, 11], [8, 9, 12, 13, 14]]
    branched = [Example(ids=np.array(ids, np.int32), trained=np.arange(len(ids)) >= 2) for ids in options]
    rows = [row([example(length, 2, place)]) for place, length in enumerate(lengths)]
    return collate(sorted([*rows, row(branched)], key=len), CPU, layout="flat")


def read(loss: TokenLoss, given: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    loss.zero_grad()
    nll = loss(given).nll
    (nll * torch.linspace(0.1, 1, len(nll))).sum().backward()
    return nll.detach(), {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_as_one_operation_gives_the_same_bits(kind: str) -> None:
    light, plain = (loss_of(made(KINDS[kind]), attention=attention) for attention in (True, False))
    assert counts(light) == (3, 2), "the last layer's MLP skips tokens"
    assert counts(plain) == (0, 0)
    for lengths in ((9, 3, 12, 12), (5, 5, 5), (30, 4)):
        (nll, gradients), (expected, plain_gradients) = (read(loss, batch(*lengths)) for loss in (light, plain))
        assert torch.equal(nll, expected)
        assert gradients.keys() == plain_gradients.keys()
        for name, gradient in plain_gradients.items():
            assert torch.equal(gradients[name], gradient), name
        with torch.no_grad():
            assert torch.equal(light(batch(*lengths)).nll, nll)


class Operations(TorchDispatchMode):
    """Counts the operations that torch runs, those of the backward pass too."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_step_of_a_small_model_takes_far_fewer_operations() -> None:
    """What bounds such a step (docs/performance.md). 895 and 1,262 when it was written."""
    found = []
    for attention in (True, False):
        loss = loss_of(made(KINDS["llama"]), attention=attention)
        with Operations() as operations:
            read(loss, batch(9, 3, 12, 12))
        found.append(operations.count)
    assert found[0] < 0.75 * found[1], found


def test_rows_longer_than_those_that_were_tried_get_the_plain_attention() -> None:
    loss, plain = (loss_of(made(KINDS["llama"]), attention=attention) for attention in (True, False))
    layer = loss.model.model.layers[0]
    assert layer.self_attn.__dict__[attention_block.BLOCK].reach == 40, "the model's positions"
    with Operations() as operations:
        read(loss, batch(43))
    with Operations() as expected:
        read(plain, batch(43))
    assert operations.count > 0.99 * expected.count


@pytest.mark.parametrize("where", ["attention", "layer"])
def test_what_has_a_parameter_without_effect_yet_is_left_alone(where: str) -> None:
    """Training would never reach it."""
    model = made(KINDS["llama"])
    loss = TokenLoss(model)
    layout = fitting_layout(loss, CPU).rows
    layer = model.model.layers[0]
    module = layer.self_attn if where == "attention" else layer
    inner, module.gate = type(module).forward, nn.Parameter(torch.zeros(1))

    def forward(self: Any, *args: Any, **given: Any) -> Any:
        output = inner(self, *args, **given)
        return (output[0] + self.gate, None) if where == "attention" else output + self.gate

    module.__class__ = type("Gated", (type(module),), {"forward": forward})
    lighten(loss, layout, CPU, precision="fp32", direct=True)
    assert counts(loss) == ((2, 1) if where == "attention" else (3, 1))
    assert read(loss, batch(5, 9))[1]["model.model.layers.0." + ("self_attn." * (where == "attention")) + "gate"].any()


def test_attention_of_another_kind_is_left_alone() -> None:
    """With norms on its queries and keys, with dropout in training, with something beside the residual."""
    normed = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8))
    assert counts(loss_of(normed)) == (0, 0)
    assert counts(loss_of(LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=0.5)))) == (0, 0)
    assert counts(loss_of(tiny_model("gemma2"))) == counts(loss_of(tiny_model("gpt2"))) == (0, 0)


def test_a_layer_that_is_run_again_in_the_backward_pass_stays_as_it_is() -> None:
    model, plain = made(KINDS["llama"]), loss_of(made(KINDS["llama"]), attention=False)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = loss_of(model)
    assert counts(loss) == (3, 0)
    found, expected = (read(each, batch(9, 3))[1] for each in (loss, plain))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_frozen_weights_get_no_gradient_and_autocast_gets_the_plain_layer() -> None:
    loss = loss_of(made(KINDS["llama with biases"]))
    layer = loss.model.model.layers[0]
    for part in (layer.self_attn.k_proj, layer.input_layernorm, layer.mlp.up_proj):
        part.requires_grad_(False)
    gradients = read(loss, batch(9, 3))[1]
    frozen = {"self_attn.k_proj.weight", "self_attn.k_proj.bias", "input_layernorm.weight", "mlp.up_proj.weight"}
    assert {name for name, _ in loss.named_parameters()} - gradients.keys() == {
        f"model.model.layers.0.{name}" for name in frozen
    }
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.self_attn.q_proj(torch.ones(1, 32)).dtype == torch.bfloat16
        assert loss(batch(9, 3)).nll.isfinite().all()


def test_a_copy_has_its_own_weights_and_can_be_saved(tmp_path: Path) -> None:
    loss = loss_of(made(KINDS["llama"]))
    expected = read(loss, batch(9, 3))[0]
    twin = copy.deepcopy(loss)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert torch.equal(read(loss, batch(9, 3))[0], expected)
    assert not torch.equal(read(twin, batch(9, 3))[0], expected)
    torch.save(loss.model, tmp_path / "model.pt")
    again = TokenLoss(torch.load(tmp_path / "model.pt", weights_only=False))
    again.model.set_attn_implementation(loss.model.config._attn_implementation)
    torch.testing.assert_close(again(batch(9, 3)).nll.detach(), expected)
    assert restore(loss.model) and counts(loss) == (0, 0)
