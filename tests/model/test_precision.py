"""A model whose weights are bf16 copies (`model.precision: mixed`), and its buffers."""

from __future__ import annotations

import pytest
import torch
from device import DEVICE
from tiny_engine import tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, OpenAIGPTConfig, PretrainedConfig, PreTrainedModel, XGLMConfig

from msft.core.errors import ModelError
from msft.forward.batches import collate
from msft.forward.token_rows import row
from msft.model.precision import narrow
from msft.model.row_layout import examples, fitting_layout, try_narrow
from msft.model.token_loss import TokenLoss

FIXED: dict[str, PretrainedConfig] = {
    "xglm": XGLMConfig(
        vocab_size=40, d_model=16, ffn_dim=32, num_layers=2, attention_heads=2, max_position_embeddings=64
    ),
    "openai-gpt": OpenAIGPTConfig(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64),
}
"""Models with buffers of constants, which enter the sums of the layers: in fp32, they do not go with bf16 weights."""


def made(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.to(DEVICE).eval()


def nll(loss: TokenLoss, layout: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loss(collate([row([examples([[3, 1, 4, 1, 5, 2, 6]])[0]])], DEVICE, layout=layout)).nll
    return found


@pytest.mark.parametrize("name", FIXED)
def test_constants_follow_the_weights_where_the_model_computes_only_so(name: str) -> None:
    loss = TokenLoss(made(FIXED[name]))
    layout = fitting_layout(loss, DEVICE).rows
    exact, theirs = nll(loss, layout), made(FIXED[name], torch.bfloat16)
    narrow(loss.model)
    with pytest.raises(RuntimeError):
        nll(loss, layout)
    try_narrow(loss, layout, DEVICE)
    assert {n: b.dtype for n, b in loss.model.named_buffers()} == {n: b.dtype for n, b in theirs.named_buffers()}
    torch.testing.assert_close(nll(loss, layout).float(), exact, rtol=5e-2, atol=0)


def test_the_frequencies_of_positions_stay_fp32() -> None:
    loss = TokenLoss(tiny_model("llama").to(DEVICE).eval())
    layout = fitting_layout(loss, DEVICE).rows
    narrow(loss.model)
    try_narrow(loss, layout, DEVICE)
    assert {buffer.dtype for buffer in loss.model.buffers()} == {torch.float32}
    assert {parameter.dtype for parameter in loss.model.parameters()} == {torch.bfloat16}


class OnlyFp32(nn.Linear):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states.float())


def test_a_model_that_does_not_compute_in_bf16_is_refused() -> None:
    loss = TokenLoss(tiny_model("llama").to(DEVICE).eval())
    layout = fitting_layout(loss, DEVICE).rows
    loss.model.model.layers[0].mlp.down_proj.__class__ = OnlyFp32
    narrow(loss.model)
    with pytest.raises(ModelError, match=r"^model.precision: \w+ does not compute in bf16: .* Fix: set it to autocast"):
        try_narrow(loss, layout, DEVICE)
