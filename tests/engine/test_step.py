from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE
from hypothesis import given
from hypothesis import strategies as st
from tiny_engine import tiny_example, tiny_model
from torch.nn import functional
from transformers import T5Config, T5ForConditionalGeneration

from msft.core.errors import ModelError
from msft.core.schedule import learning_rate
from msft.data.examples import Example
from msft.engine.optimizers import make_optimizer
from msft.engine.settings import EngineSettings
from msft.engine.step import BatchLoss, Stepper
from msft.forward.batches import collate
from msft.forward.runtime import Runtime
from msft.forward.token_rows import row
from msft.model.token_loss import TokenLoss
from msft.snapshots.state import trainable


def examples(count: int) -> list[Example]:
    random = np.random.default_rng(1)
    return [tiny_example(random) for _ in range(count)]


def reference(model: torch.nn.Module, example: Example) -> torch.Tensor:
    """[targets] losses by the model's own logits, one sequence alone, without any of our code."""
    ids = torch.from_numpy(example.ids.astype(np.int64)).to(DEVICE)
    logits = model(input_ids=ids[None]).logits[0, :-1].float()
    losses = functional.cross_entropy(logits, ids[1:], reduction="none")
    return losses[torch.from_numpy(example.trained[1:])]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_the_loss_at_trained_positions_is_that_of_the_models_own_logits(kind: str) -> None:
    model = tiny_model(kind).to(DEVICE).eval()
    batch = collate([row([e]) for e in examples(5)], DEVICE, hits=True)
    with torch.no_grad():
        expected = torch.cat([reference(model, example) for example in examples(5)])
        scores = TokenLoss(model)(batch)
    assert scores.nll.dtype == torch.float32
    torch.testing.assert_close(scores.nll, expected, rtol=1e-5, atol=1e-5)
    assert scores.hits is not None and scores.hits.shape == scores.nll.shape


def test_the_head_sees_only_the_positions_that_predict_a_target() -> None:
    model = tiny_model().to(DEVICE)
    seen: list[tuple[int, ...]] = []
    wrapped = TokenLoss(model)
    model.lm_head.register_forward_hook(lambda head, inputs, output: seen.append(tuple(output.shape)))
    batch = collate([row([e]) for e in examples(5)], DEVICE)
    wrapped(batch)
    assert seen == [(1, len(batch.targets), 48)]
    assert model(input_ids=batch.ids).logits.shape[:2] == batch.ids.shape, "the model alone must stay as it was"


def test_a_model_without_a_plain_head_is_refused() -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=48, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    model.get_output_embeddings = lambda: None
    with pytest.raises(ModelError, match="get_output_embeddings"):
        TokenLoss(model)


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_the_gradient_is_that_of_the_loss_over_the_whole_global_batch(reduction: str) -> None:
    batch = examples(9)
    plain = tiny_model().to(DEVICE)
    losses = [reference(plain, example) for example in batch]
    per_example = torch.stack([loss.mean() for loss in losses])
    loss = torch.cat(losses).mean() if reduction == "token" else per_example.mean()
    loss.backward()
    model = tiny_model().to(DEVICE)
    settings = EngineSettings(seed=1, batch_size=9, horizon=1, learning_rate=0.1, loss_reduction=reduction)  # type: ignore[arg-type]
    stepper = Stepper(
        TokenLoss(model),
        make_optimizer(trainable(model), settings),
        settings,
        Runtime(device=DEVICE, max_tokens=30),
    )
    result = stepper.backward(batch, (1, 2, 3))
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.examples == pytest.approx(per_example.detach().cpu().numpy(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


def gradients(budget: int, reduction: str, weights: list[float] | None) -> tuple[BatchLoss, dict[str, torch.Tensor]]:
    model = tiny_model().to(DEVICE)
    settings = EngineSettings(seed=1, batch_size=9, horizon=1, learning_rate=0.1, loss_reduction=reduction)  # type: ignore[arg-type]
    runtime = Runtime(device=DEVICE, max_tokens=budget)
    stepper = Stepper(TokenLoss(model), make_optimizer(trainable(model), settings), settings, runtime)
    found = stepper.begin(examples(9), (1, 2, 3), None if weights is None else np.array(weights))()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return found, {name: grad for name, grad in grads.items() if grad is not None}


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_a_weighted_loss_is_that_of_a_plain_loop_over_the_unweighted_divisor(reduction: str) -> None:
    batch, weights = examples(9), [0.5, 2.0, 0.0, 1.0, 1.5, 0.5, 0.0, 3.0, 1.0]
    plain = tiny_model().to(DEVICE)
    total = torch.zeros((), device=DEVICE)
    tokens = sum(example.targets for example in batch)
    for example, weight in zip(batch, weights, strict=True):
        losses = reference(plain, example)
        total = total + weight * (losses.sum() / tokens if reduction == "token" else losses.mean() / len(batch))
    total.backward()
    told = gradients(4096, reduction, None)[0]
    for budget in (14, 30, 4096):
        found, grads = gradients(budget, reduction, weights)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, plain.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
        assert found.loss == pytest.approx(told.loss, rel=1e-6), "the reported loss is not weighted"
        assert found.examples == pytest.approx(told.examples, rel=1e-5)


def test_weights_of_one_change_no_bit_and_weights_of_zero_leave_no_gradient() -> None:
    plain, ones, nothing = (gradients(30, "token", weights)[1] for weights in (None, [1.0] * 9, [0.0] * 9))
    assert all(torch.equal(plain[name], ones[name]) for name in plain)
    assert not any(grad.any() for grad in nothing.values())


def test_an_update_is_one_adamw_step_at_the_rate_given_with_norms_undecayed(tmp_path: Path) -> None:
    model = tiny_model().to(DEVICE)
    settings = EngineSettings(seed=1, batch_size=4, horizon=1, learning_rate=9.0, weight_decay=0.5, max_grad_norm=1e-9)
    stepper = Stepper(
        TokenLoss(model),
        make_optimizer(trainable(model), settings),
        settings,
        Runtime(device=DEVICE, max_tokens=99),
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepper.update(0.01)
    for name, parameter in model.named_parameters():
        decay = 1 - 0.01 * 0.5 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * decay)
        assert parameter.grad is None


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup=st.floats(0, 1),
    position=st.floats(0, 20),
)
def test_the_learning_rate_stays_between_nothing_and_its_peak(schedule: str, warmup: float, position: float) -> None:
    assert 0 <= learning_rate(2.0, schedule, warmup, 8.0, position) <= 2.0


def test_learning_rate_schedules() -> None:
    assert learning_rate(2.0, "constant", 0, 8.0, 3) == 2.0
    assert learning_rate(2.0, "linear", 0.25, 8.0, 1) == 1.0
    assert learning_rate(2.0, "linear", 0.25, 8.0, 5) == pytest.approx(1.0)
    assert learning_rate(2.0, "cosine", 0, 8.0, 4) == pytest.approx(1.0)
    assert learning_rate(2.0, "linear", 0, 8.0, 8) == 0.0
    assert learning_rate(2.0, "linear", 0.5, math.inf, 8) == 2.0
