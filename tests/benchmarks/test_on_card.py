"""What the benchmarks need of a card, and no CPU can show."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import varlen_attention

pytestmark = pytest.mark.gpu
LENGTHS = [3, 70, 1, 17]


@pytest.mark.parametrize("groups", [True, False])
def test_attention_over_lengths_is_that_of_each_row_alone(groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, forwards and backwards; also where keys have to be repeated for the heads of queries."""
    if groups and not varlen_attention.takes_groups(torch.device("cuda")):
        pytest.skip("this torch's operation takes no groups of heads")
    monkeypatch.setattr(varlen_attention, "takes_groups", lambda device: groups)
    torch.manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), 64) for heads in (4, 2, 2)]
    given = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    ends = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], device="cuda", dtype=torch.int32)
    found, _ = varlen_attention.attend(
        nn.Identity(), *given, None, scaling=0.125, cu_seq_lens_q=ends, max_length_q=max(LENGTHS)
    )
    expected = alone(given)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    weights = torch.randn(found.shape, device="cuda", dtype=torch.bfloat16)
    own, plain = (torch.autograd.grad((one * weights).sum(), given) for one in (found, expected))
    for one, other in zip(own, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-2)


def alone(given: list[Tensor]) -> Tensor:
    rows = zip(*(tensor.split(LENGTHS, 2) for tensor in given), strict=True)
    parts = [
        functional.scaled_dot_product_attention(*row, is_causal=True, scale=0.125, enable_gqa=True) for row in rows
    ]
    return torch.cat(parts, 2).transpose(1, 2)
