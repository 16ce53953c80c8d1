"""The head with its loss, and the embedding: the plain model's likelihoods and gradients, in less memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE
from tiny_engine import VOCABULARY, tiny_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from msft.data.examples import Example
from msft.forward.batches import Continuation, MicroBatch, NextTokens, collate
from msft.forward.token_rows import row
from msft.model import cross_entropy
from msft.model import head as head_module
from msft.model import token_loss as loss_module
from msft.model.cross_entropy import most_likely
from msft.model.embedding import gather_directly
from msft.model.head import FusedHead
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss

PADDING = 3


def bf16() -> AbstractContextManager[object]:
    return torch.autocast(DEVICE.type, torch.bfloat16)


def batches() -> list[MicroBatch]:
    """Choices that share their first row of logits, the padding token among them; and a micro-batch of other sizes."""

    def example(*ids: int, prompt: int = 2) -> Example:
        return Example(ids=np.array(ids, np.int32), trained=np.arange(len(ids)) >= prompt)

    choices = [example(5, 6, 7), example(5, 6, 9, PADDING, 4), example(5, 6, 9, 8, 4)]
    return [
        collate([row([example(7, PADDING, 7, 9)]), row(choices)], DEVICE, layout="flat", hits=True),
        collate([row([example(1, 2, 3)]), row([example(7, 7, 8, 2, 3, 1)])], DEVICE, layout="flat", hits=True),
    ]


def plain(*, tied: bool = True, frozen: bool = False) -> TokenLoss:
    model = tiny_model(tied=tied).to(DEVICE)
    model.get_input_embeddings().padding_idx = PADDING
    if frozen:
        for parameter in (*model.get_input_embeddings().parameters(), *model.get_output_embeddings().parameters()):
            parameter.requires_grad = False
    loss = TokenLoss(model)
    assert fitting_layout(loss, DEVICE).rows == "flat"
    return loss


def fused(*, direct: bool = True, tied: bool = True, frozen: bool = False) -> TokenLoss:
    loss = plain(tied=tied, frozen=frozen)
    head = loss.head
    assert isinstance(head, nn.Linear)
    assert FusedHead.fits(head)
    loss.fused = FusedHead(head, direct=direct)
    loss.fused.take_over()
    if direct:
        gather_directly(loss.embedding)
    return loss


def step(loss: TokenLoss, *, half: bool) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Likelihoods, hits and summed gradients of two micro-batches."""
    nlls, hits = [], []
    with bf16() if half else nullcontext():
        for given in batches():
            nll, hit, _ = loss(given)
            (nll * torch.linspace(0.1, 1, len(nll), device=DEVICE)).sum().backward()
            nlls.append(nll.detach())
            hits.append(hit)
    gradients = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
    loss.zero_grad(set_to_none=True)
    return nlls, hits, gradients


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("held", [head_module.LOGITS, 3 * VOCABULARY])
def test_it_gives_the_plain_models_likelihoods_and_gradients(
    half: bool, direct: bool, tied: bool, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one part or several, a few rows of the weight at once; twice, as arrays are used again."""
    monkeypatch.setattr(head_module, "LOGITS", held)
    monkeypatch.setattr(head_module, "AT_ONCE", 5)
    monkeypatch.setattr(cross_entropy, "PIECE", {DEVICE.type: 2 * VOCABULARY})
    expected, own = plain(tied=tied), fused(direct=direct, tied=tied)
    nlls, hits, gradients = step(expected, half=half)
    for _ in range(2):
        found = step(own, half=half)
        torch.testing.assert_close(found[0], nlls, rtol=1e-5, atol=1e-5)
        assert all(torch.equal(one, other) for one, other in zip(found[1], hits, strict=True))
        assert found[2].keys() == gradients.keys()
        for name, gradient in gradients.items():
            near = 2e-2 if half else 1e-5
            torch.testing.assert_close(found[2][name], gradient, rtol=near, atol=near * float(gradient.abs().max()))


def test_what_is_frozen_has_no_gradient() -> None:
    expected, own = step(plain(frozen=True), half=False), step(fused(frozen=True), half=False)
    assert own[2].keys() == expected[2].keys()
    assert not any("embed" in name or "head" in name for name in own[2])
    for name, gradient in expected[2].items():
        torch.testing.assert_close(own[2][name], gradient, rtol=1e-5, atol=1e-6)


def test_a_pass_does_not_write_over_what_another_still_needs() -> None:
    """Two forward passes, then their backward passes; a forward pass that nobody goes back through in between."""
    one, two = batches()
    apart = fused()
    for given in (one, two):
        apart(given).nll.sum().backward()
    together = fused()
    first, second = together(one).nll, together(two).nll
    together(one)
    with torch.no_grad():
        together(two)
    first.sum().backward()
    second.sum().backward()
    for (name, found), expected in zip(together.named_parameters(), apart.parameters(), strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad, expected.grad, msg=name)


def test_large_arrays_are_used_again() -> None:
    loss = fused()
    seen = []
    take = FusedHead.take
    with pytest.MonkeyPatch.context() as patch, bf16():

        def noted(self: FusedHead, name: str, *given: object) -> Tensor:
            array = take(self, name, *given)  # type: ignore[arg-type]
            seen.append((name, array.untyped_storage().data_ptr()))
            return array

        patch.setattr(FusedHead, "take", noted)
        weight = loss.head.get_parameter("weight")
        grads = []
        for _ in range(3):
            loss(batches()[0]).nll.sum().backward()
            assert weight.grad is not None
            grads.append(weight.grad.data_ptr())
            loss.zero_grad(set_to_none=True)
            with torch.no_grad():
                loss(batches()[0])
    assert {name for name, _ in seen} == {"logits", "weight", "of weight"} and len(seen) > 12
    assert len(set(seen)) == 3 and len(set(grads)) == 1


def test_an_embedding_that_does_more_is_left_alone() -> None:
    for embedding in (nn.Embedding(4, 2, max_norm=1.0), nn.Embedding(4, 2, sparse=True), nn.Linear(2, 4)):
        before = type(embedding)
        gather_directly(embedding)
        assert type(embedding) is before


def drawn_to(loss: TokenLoss, tokens: list[int], above: float) -> PreTrainedModel:
    """The last of `tokens` is the likeliest of all, by less than bf16 keeps apart."""
    model: PreTrainedModel = loss.model
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight.mul_(1e-3)
        for rank, token in enumerate(tokens):
            weight[token] = weight[tokens[0]] if rank else 40 * torch.ones_like(weight[token])
        weight[tokens[-1]] *= 1 + above
        model.model.norm.weight.fill_(1.0)
        model.model.norm.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
    return model


@pytest.mark.parametrize("make", [plain, fused])
def test_a_tie_that_bf16_makes_is_settled(make: type) -> None:
    """Or the token with the lower number would win."""
    loss = make(tied=False)
    drawn_to(loss, [5, 11, 8], 1e-4)
    given = collate([row([Example(ids=np.array([1, 2, token], np.int32), trained=np.arange(3) > 1)])
                     for token in (5, 8, 11)], DEVICE, layout="flat", hits=True)  # fmt: skip
    with torch.no_grad(), bf16():
        assert loss(given).hits.tolist() == [False, True, False]
        ids, positions = torch.tensor([[1, 2]], device=DEVICE), torch.arange(2, device=DEVICE)[None]
        said = loss(Continuation(ids=ids, mask=torch.ones_like(ids), positions=positions))
    assert isinstance(said, NextTokens) and said.tokens.tolist() == [8]


@pytest.mark.parametrize(("make", "layout"), [(plain, "flat"), (plain, "lengths"), (fused, "flat")])
@pytest.mark.parametrize("in_parts", [False, True])
def test_what_rounding_took_from_a_logit_settles_which_option_is_likeliest(
    make: type, in_parts: bool, layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_parts:
        monkeypatch.setattr(head_module, "LOGITS", VOCABULARY)
        monkeypatch.setattr(loss_module, "LOGITS", VOCABULARY)
    loss = make(tied=False)
    if layout == "lengths":
        loss = TokenLoss(tiny_model(tied=False).to(DEVICE))
        assert fitting_layout(loss, DEVICE, lengths=True).rows == layout
    assert loss.ends_with_head
    drawn_to(loss, [5, 11, 8], 1e-4)
    rows = [row([Example(ids=np.array([1, 2, token], np.int32), trained=np.arange(3) > 1)]) for token in (5, 8, 11)]
    with torch.no_grad(), bf16():
        scores = loss(collate(rows, DEVICE, layout=layout, exact=True))
        assert loss(collate(rows, DEVICE, layout=layout)).lost is None
    assert len(set(scores.nll.tolist())) == 1, "tied in bf16"
    assert (scores.lost - scores.nll).tolist().index(float((scores.lost - scores.nll).max())) == 1
    with torch.no_grad():
        assert not loss(collate(rows, DEVICE, layout=layout, exact=True)).lost.any(), "fp32 takes nothing"


def test_the_arg_max_is_torchs_where_nothing_is_tied_and_the_first_where_all_is() -> None:
    logits = torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "PIECE", {"cpu": 70})
        assert torch.equal(most_likely(logits, torch.ones(40, 4), torch.ones(30, 4)), logits.argmax(-1))
        half = (8 * logits).to(torch.bfloat16)
        # As good as the best in bf16, and among those the best by states @ weight.
        states, weight = torch.randn(40, 4), torch.randn(30, 4)
        found = most_likely(half, states, weight)
        assert torch.equal(half.gather(1, found[:, None])[:, 0], half.amax(-1))
        exact = (states @ weight.T).masked_fill(half < half.amax(-1, keepdim=True), -torch.inf)
        assert torch.equal(found, exact.argmax(-1))
        assert torch.equal(most_likely(half, states, None), half.float().argmax(-1))
    assert most_likely(torch.zeros(2, 30, dtype=torch.bfloat16), torch.ones(2, 4), torch.ones(30, 4)).tolist() == [0, 0]
