"""Rows laid end to end: the same likelihoods and gradients as each sequence alone, without a token of padding."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_engine import VOCABULARY, tiny_model
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from msft.core.errors import ModelError
from msft.data.examples import Example
from msft.engine.optimizers import make_optimizer
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper
from msft.forward.batches import RowLayout, collate
from msft.forward.runtime import Runtime
from msft.forward.token_rows import row
from msft.model import attention
from msft.model import token_loss as loss_module
from msft.model.compiled import compile_layers
from msft.model.model_parts import check_same_layers
from msft.model.row_layout import fitting_layout
from msft.model.token_budget import LEAST, MOST, fitting, one_pass
from msft.model.token_loss import TokenLoss
from msft.snapshots.state import trainable

SETTINGS = EngineSettings(seed=1, batch_size=8, horizon=1, learning_rate=0.01)


def example(length: int, random: np.random.Generator) -> Example:
    trained = random.random(length) < 0.4
    trained[0], trained[-1] = False, True
    return Example(ids=random.integers(1, VOCABULARY, length).astype(np.int32), trained=trained)


def shared_heads(dropout: float = 0.0) -> PreTrainedModel:
    """Six query heads on two key heads."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=2, max_position_embeddings=64, attention_dropout=dropout, bos_token_id=0,
                eos_token_id=0,
            )
        ).to(DEVICE)  # fmt: skip


def gradients(model: PreTrainedModel, batch: list[Example], layout: RowLayout, budget: int) -> dict[str, torch.Tensor]:
    model.set_attn_implementation(attention.NAME if layout == "flat" else "sdpa")
    model.zero_grad()
    runtime = Runtime(device=DEVICE, max_tokens=budget, layout=layout)
    stepper = Stepper(TokenLoss(model).train(), make_optimizer(trainable(model), SETTINGS), SETTINGS, runtime)
    found = stepper.backward(batch, (1, 2, 3))
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return grads | {"losses": torch.from_numpy(found.examples)}


@pytest.mark.parametrize("by_products", [True, False])
@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=9), budget=st.integers(1, 200), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_gradients_are_those_of_padded_rows(by_products: bool, lengths: list[int], budget: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    batch = [example(length, random) for length in lengths]
    expected = gradients(shared_heads(), batch, "padded", 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "PRODUCTS", 512 if by_products else 0)
        found = gradients(shared_heads(), batch, "flat", budget)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_nothing_is_padded_but_inside_attention() -> None:
    random = np.random.default_rng(0)
    rows = [row([example(length + 1, random)]) for length in (3, 3, 4, 30)]  # the last is only predicted
    batch = collate(rows, DEVICE, layout="flat")
    assert batch.ids.shape == (1, 40) and batch.positions is not None
    assert batch.positions[0].tolist() == [*range(3), *range(3), *range(4), *range(30)]
    assert (batch.spans[0].start, batch.spans[-1].stop) == (0, 40)
    inside = sum(span.rows * span.longest for span in batch.spans)
    assert 40 <= inside < 4 * 30
    with pytest.raises(AssertionError, match="sorted by length"):
        collate(rows[::-1], DEVICE, layout="flat")


def test_dropout_in_attention_is_drawn_from_the_seed_and_only_in_training() -> None:
    random = np.random.default_rng(0)
    batch = [example(length, random) for length in (5, 9, 9)]
    first, again = (gradients(shared_heads(0.5), batch, "flat", 100) for _ in range(2))
    without = gradients(shared_heads(), batch, "flat", 100)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.allclose(first["losses"], without["losses"])
    model = shared_heads(0.5)
    model.set_attn_implementation(attention.NAME)
    rows = collate([row([e]) for e in batch], DEVICE, layout="flat")
    model.eval()
    torch.testing.assert_close(TokenLoss(model)(rows).nll, TokenLoss(shared_heads().eval())(padded(batch)).nll)


def padded(batch: list[Example]) -> object:
    return collate([row([e]) for e in batch], DEVICE)


def test_a_layer_of_another_kind_is_not_proven_by_a_model_of_the_same_configuration() -> None:
    """A twin has the layers that the configuration names, so it shows nothing of this one."""
    plain, other = tiny_model(), tiny_model()
    assert fitting_layout(TokenLoss(plain), torch.device("cpu")).rows == "flat"
    mlp = other.model.layers[0].mlp
    mlp.__class__ = type("AcrossRows", (type(mlp),), {"forward": lambda self, x: x.cumsum(-2)})
    assert fitting_layout(TokenLoss(other), torch.device("cpu")).rows == "padded"


def test_a_bias_by_position_is_refused_in_flat_rows() -> None:
    tensor = torch.zeros(1, 2, 4, 8)
    rows = collate([row([example(4, np.random.default_rng(0))])], DEVICE, layout="flat")
    with pytest.raises(ValueError, match="position_bias"):
        attention.attend(torch.nn.Identity(), tensor, tensor, tensor, None, msft_spans=rows.spans, position_bias=tensor)


@pytest.mark.parametrize("by_products", [True, False])
@pytest.mark.parametrize("window", [None, 1, 4, 9])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_windows_caps_and_sinks_are_those_of_the_definition(
    by_products: bool, window: int | None, cap: float | None, with_sinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against attention written out for single sequences, with branches and padding inside a span."""
    monkeypatch.setattr(attention, "PRODUCTS", 512 if by_products else 0)
    monkeypatch.setattr("msft.forward.batches.SPAN_PRICE", {DEVICE.type: 10_000})
    random = np.random.default_rng(1)
    trunk = random.integers(1, VOCABULARY, 6)
    group = [
        Example(ids=np.append(trunk, random.integers(1, VOCABULARY, n)).astype(np.int32), trained=np.arange(6 + n) >= 6)
        for n in (3, 8, 5)
    ]
    rows = sorted([row(group), *(row([example(n, random)]) for n in (4, 9, 14))], key=len)
    batch = collate(rows, DEVICE, layout="flat")
    assert any(span.sees is not None and span.slots is not None for span in batch.spans)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, batch.ids.shape[1], 8, device=DEVICE) for heads in (4, 2, 2))
    sinks = torch.randn(4, device=DEVICE) if with_sinks else None
    module = torch.nn.Identity()
    module.num_key_value_groups = 2
    found, _ = attention.attend(
        module, q, k, v, batch.mask, msft_spans=batch.spans, sliding_window=window, softcap=cap, s_aux=sinks
    )
    start = 0
    for one in rows:
        for at in range(len(one)):
            sees = [
                other
                for other in range(at + 1)
                if one.branch[other] in (0, one.branch[at])
                and (window is None or one.positions[at] - one.positions[other] < window)
            ]
            for head in range(4):
                scores = q[0, head, start + at] @ k[0, head // 2, [start + n for n in sees]].T * 8**-0.5
                scores = scores if cap is None else cap * torch.tanh(scores / cap)
                whole = scores if sinks is None else torch.cat([scores, sinks[head : head + 1]])
                expected = whole.softmax(0)[: len(sees)] @ v[0, head // 2, [start + n for n in sees]]
                torch.testing.assert_close(found[0, start + at, head], expected, rtol=1e-4, atol=1e-5)
        start += len(one)


@pytest.mark.parametrize("layout", ["padded", "flat"])
def test_the_head_never_holds_the_logits_of_all_targets(monkeypatch: pytest.MonkeyPatch, layout: RowLayout) -> None:
    random = np.random.default_rng(0)
    batch = [example(length, random) for length in (20, 20, 30)]
    expected = gradients(tiny_model().to(DEVICE), batch, layout, 200)
    monkeypatch.setattr(loss_module, "LOGITS", 5 * VOCABULARY)
    model = tiny_model().to(DEVICE)
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda head, inputs, output: seen.append(output[..., 0].numel()))
    model.set_attn_implementation(attention.NAME if layout == "flat" else "sdpa")
    loss = TokenLoss(model).train()
    loss.probe(collate([row([e]) for e in batch[:1]], DEVICE))
    assert loss.ends_with_head
    seen.clear()
    stepper = Stepper(
        loss,
        make_optimizer(trainable(model), SETTINGS),
        SETTINGS,
        Runtime(device=DEVICE, max_tokens=200, layout=layout),
    )
    found = stepper.backward(batch, (1, 2, 3))
    assert seen and max(seen) <= 5 and sum(seen) == 2 * sum(e.targets for e in batch), "once more for the gradient"
    torch.testing.assert_close(torch.from_numpy(found.examples), expected["losses"], rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_logits_that_the_model_goes_on_to_change_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "LOGITS", 5 * VOCABULARY)
    model = tiny_model("gemma2").to(DEVICE).eval()
    batch = [example(30, np.random.default_rng(0))]
    loss = TokenLoss(model)
    with torch.no_grad():
        first, second = (loss(collate([row([e]) for e in batch], DEVICE, hits=True)) for _ in range(2))
        ids = torch.from_numpy(batch[0].ids.astype(np.int64)).to(DEVICE)
        logits = model(input_ids=ids[None]).logits[0, :-1]
    own = functional.cross_entropy(logits, ids[1:], reduction="none")[torch.from_numpy(batch[0].trained[1:])]
    for scores in (first, second):
        torch.testing.assert_close(scores.nll, own, rtol=1e-5, atol=1e-5)
    loss.probe(collate([row([e]) for e in batch], DEVICE))
    with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16):
        capped = loss(collate([row([e]) for e in batch], DEVICE, exact=True))
    assert not capped.lost.any(), "the head's product is not what is capped"


class Doubles(LlamaForCausalLM):
    """Code of its own, which changes its logits in place."""

    def forward(self, *given: Any, **keywords: Any) -> Any:
        found = super().forward(*given, **keywords)
        found.logits.mul_(2.0)
        return found


def test_logits_that_a_model_changes_in_place_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "LOGITS", 5 * VOCABULARY)
    model = Doubles(shared_heads().config).to(DEVICE).eval()
    loss, one = TokenLoss(model), example(30, np.random.default_rng(0))
    batch = collate([row([one])], DEVICE)
    with torch.no_grad():
        loss.probe(batch)
        found = loss(batch).nll
        logits = model(input_ids=torch.from_numpy(one.ids.astype(np.int64)).to(DEVICE)[None]).logits[0, :-1]
    own = functional.cross_entropy(logits, torch.from_numpy(one.ids[1:].astype(np.int64)).to(DEVICE), reduction="none")
    torch.testing.assert_close(found, own[torch.from_numpy(one.trained[1:])], rtol=1e-5, atol=1e-5)


def test_a_model_that_computes_in_bf16_is_tried_up_to_its_rounding() -> None:
    """As each part of one that is split over processes; what is exact has been proven of its twin."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=8,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0,
                eos_token_id=0,
            )
        ).to(torch.bfloat16)  # fmt: skip
    cpu = torch.device("cpu")
    strict, rounded = (fitting_layout(TokenLoss(model), cpu, rounds=rounds) for rounds in (False, True))
    assert rounded.rows == "flat" != strict.rows
    assert "rows end to end: the model itself gives other likelihoods" in strict.why and not rounded.why


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a DEVICE needs a C++ compiler")
def test_a_compiled_model_computes_the_same_and_keeps_its_names() -> None:
    random = np.random.default_rng(0)
    batch = [example(length, random) for length in (5, 9, 12, 30)]
    expected = gradients(tiny_model().to(DEVICE), batch, "flat", 40)
    model = tiny_model().to(DEVICE)
    names = [name for name, _ in model.named_parameters()]
    assert fitting_layout(TokenLoss(model), DEVICE).rows == "flat"
    compile_layers(model, DEVICE)
    found = gradients(model, batch, "flat", 40)
    assert names == [name for name, _ in model.named_parameters()]
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_pass_that_finds_the_budget_is_one_of_any_model() -> None:
    """Of one that is only scored, whose adapter is frozen, and of one with few positions."""
    frozen = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    seen: list[int] = []
    for model in (frozen, tiny_model("gpt2"), tiny_model()):
        loss = TokenLoss(model)
        loss.embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
        one_pass(loss, 128, "padded", torch.device("cpu"))
        assert all(parameter.grad is None for parameter in loss.parameters())
    assert seen == [63, 63, 63], "the models have 64 positions, and a last token is only predicted"


@given(total=st.integers(1, 1 << 38), state=st.integers(0, 1 << 36), activations=st.integers(1, 1 << 34))
def test_the_token_budget_is_a_power_of_two_that_fits(total: int, state: int, activations: int) -> None:
    found = fitting(total, state, activations)
    assert LEAST <= found <= MOST and found & (found - 1) == 0
    assert found == LEAST or state + activations * found / LEAST <= total
    assert fitting(2 * total, state, activations) >= found


@pytest.mark.parametrize("name", ["layerdrop", "decoder_layerdrop"])
def test_layers_that_are_dropped_at_random_are_refused_with_several_processes(name: str) -> None:
    """Each process would wait for the gradients of its own."""
    model = tiny_model()
    check_same_layers(model)
    setattr(model.config, name, 0.2)
    with pytest.raises(ModelError, match=rf"\({name}: 0.2\), which differ between processes. Fix: set {name}: 0"):
        check_same_layers(model)
