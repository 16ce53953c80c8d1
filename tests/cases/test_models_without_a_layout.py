"""A model whose rows touch in every layout is refused, each time that it is opened, and the message says why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BigBirdConfig, BigBirdForCausalLM, LlamaConfig, LlamaForCausalLM

from msft.core.errors import ModelError
from msft.model.isolation import proven
from msft.model.row_layout import check_rows, fitting_layout
from msft.model.token_loss import TokenLoss

CPU = torch.device("cpu")
SIZES = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


class Remembering(LlamaForCausalLM):
    """Counts rows of 20 tokens: a leak from one micro-batch into the next."""

    kept = 0.0

    def forward(self, input_ids: Any = None, **more: Any) -> Any:
        output = super().forward(input_ids=input_ids, **more)
        output.logits = output.logits + self.kept * torch.arange(output.logits.shape[-1])
        if input_ids.shape[1] == 20:
            self.kept += 1e-3
        return output


class Backwards(LlamaForCausalLM):
    """The first token of each row is told the last row of the micro-batch: a leak from a later row into earlier ones.
    Its own proof has to find it in every layout but single rows."""

    def forward(self, input_ids: Any = None, **more: Any) -> Any:
        embedded = self.get_input_embeddings()(input_ids)
        if len(input_ids) > 1 or "msft_spans" in more:
            embedded = embedded + 1e-6 * embedded[-1:, -1:].mean()
        return super().forward(inputs_embeds=embedded, **more)


class Untrained(LlamaForCausalLM):
    """A parameter loses its gradient where several rows share a micro-batch; the likelihoods stay as they are."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.shift = torch.nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, input_ids: Any = None, **more: Any) -> Any:
        shift = self.shift.detach() if len(input_ids) > 1 or "msft_spans" in more else self.shift
        return super().forward(inputs_embeds=self.get_input_embeddings()(input_ids) + shift, **more)


class Together(LlamaForCausalLM):
    """Normalises over the rows of a micro-batch."""

    def forward(self, input_ids: Any = None, **more: Any) -> Any:
        embedded = self.get_input_embeddings()(input_ids)
        return super().forward(inputs_embeds=embedded - embedded.mean((0, 1)), **more)


def made(kind: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(LlamaConfig(**SIZES, attn_implementation="sdpa"))


def test_it_is_refused_each_time() -> None:
    model = made(Remembering)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"no layout of rows .*one row at a time: a likelihood differs by.*Fix: "):
            check_rows(model, 64)
        with pytest.raises(ModelError, match="Remembering cannot be trained here"):
            fitting_layout(TokenLoss(model), CPU, 64)


@pytest.mark.parametrize("kind", [Backwards, Untrained])
def test_a_leak_of_any_direction_and_a_lost_gradient_leave_single_rows(kind: Any) -> None:
    assert [str(layout) for layout in proven(made(kind), None, CPU)] == ["one row at a time"]
    assert fitting_layout(TokenLoss(made(kind)), CPU).alone


def test_a_mean_over_the_micro_batch_is_not_causal() -> None:
    with pytest.raises(ModelError, match="depends on later tokens"):
        check_rows(made(Together), 64)
    with pytest.raises(ModelError, match="depends on later tokens"):
        check_rows(made(Together), 64)


def test_block_sparse_attention_reads_later_tokens_in_long_rows() -> None:
    """Rows of a proof have too few blocks to show it; a run trained full attention, and handed over the other."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BigBirdConfig(**sizes, intermediate_size=32, max_position_embeddings=256, is_decoder=True)
    with pytest.raises(ModelError, match=r"later tokens. Fix: set attention_type: original_full in its config.json"):
        check_rows(BigBirdForCausalLM(config), 64)
    config.attention_type = "original_full"
    check_rows(BigBirdForCausalLM(config), 64)
