"""The traps of design 3.7: aliasing, tied tensors, an optimizer that is only seemingly empty."""

from __future__ import annotations

import pytest
import torch
from device import DEVICE
from torch import nn

from msft.data.order import Cursor
from msft.snapshots.state import State, capture, restore, trainable

CURSOR = Cursor(step=3, began=2, epoch=1, drawn={"a": 5})


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.middle = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.frozen(self.middle(self.embedding(ids)))).square().sum()  # type: ignore[no-any-return]


def made(fused: bool) -> tuple[Tied, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = Tied().to(DEVICE)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=fused)


def train(model: Tied, optimizer: torch.optim.AdamW, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        loss = model(torch.tensor([step % 5, 1], device=DEVICE))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fused", [True, False])
def test_training_from_a_restored_state_repeats_bit_for_bit(fused: bool) -> None:
    model, optimizer = made(fused)
    train(model, optimizer, 3)
    state = capture(trainable(model), optimizer, CURSOR)
    kept = {name: tensor.clone() for name, tensor in state.tensors.items()}
    first = train(model, optimizer, 4)
    end = capture(trainable(model), optimizer, CURSOR)
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.tensors.items()), "the state is an alias"
    restore(trainable(model), optimizer, state)
    assert train(model, optimizer, 4) == first
    assert all(
        torch.equal(end.tensors[name], tensor)
        for name, tensor in capture(trainable(model), optimizer, CURSOR).tensors.items()
    )
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.tensors.items()), "the state is an alias"


def test_tied_weights_are_held_once_and_stay_tied_and_frozen_ones_are_not_held() -> None:
    model, optimizer = made(True)
    state = capture(trainable(model), optimizer, CURSOR)
    assert set(state.tensors) == {"weight/embedding.weight", "weight/middle.weight", "weight/middle.bias"}
    assert state.nbytes == 4 * (20 + 16 + 4)
    restore(trainable(model), optimizer, state)
    assert model.head.weight is model.embedding.weight


@pytest.mark.parametrize("fused", [True, False])
def test_capturing_an_optimizer_that_never_stepped_does_not_fake_its_state(fused: bool) -> None:
    model, optimizer = made(fused)
    state = capture(trainable(model), optimizer, CURSOR)
    assert len(optimizer.state) == 0
    first = train(model, optimizer, 3)
    restore(trainable(model), optimizer, state)
    assert len(optimizer.state) == 0
    assert train(model, optimizer, 3) == first


@pytest.mark.parametrize("fused", [True, False])
def test_a_state_restores_into_an_optimizer_that_never_stepped(fused: bool) -> None:
    model, optimizer = made(fused)
    train(model, optimizer, 3)
    state = capture(trainable(model), optimizer, CURSOR)
    first = train(model, optimizer, 3)
    other, fresh = made(fused)
    restore(trainable(other), fresh, State(tensors=state.tensors, cursor=CURSOR))
    assert train(other, fresh, 3) == first


def test_pending_gradients_do_not_survive_a_restore() -> None:
    model, optimizer = made(True)
    state = capture(trainable(model), optimizer, CURSOR)
    model(torch.tensor([1, 2], device=DEVICE)).backward()
    restore(trainable(model), optimizer, state)
    assert all(parameter.grad is None for parameter in model.parameters())
