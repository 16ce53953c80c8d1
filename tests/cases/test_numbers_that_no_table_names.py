"""A length that a configuration has under any name shows on the twin, and so does one that generated texts reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import make_model, plainly
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from msft.config.reader import from_mapping
from msft.data.examples import Example
from msft.engine.batched_decoding import NEW_TOKENS, PROMPTS, fitting_decoding
from msft.forward.runtime import Runtime, sequence_scores
from msft.model.isolation import proven, twin_of
from msft.model.readings import THOROUGH
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.model.twin import LONGEST
from msft.run.job import longest_row, settings_of
from msft.scoring.generation import Request, generate

CPU = torch.device("cpu")
FLOOR = {
    "head_dim": 8, "num_local_experts": 2, "floor_scale": 64, "attn_scale": 2.0, "num_hidden_layers": 4,
    "intermediate_size_mlp": 64, "attention_chunk_size": 512,
}  # fmt: skip
"""Llama 4 scales its queries by the place of a token in the micro-batch, in steps of `floor_scale` tokens."""


def llama4(folder: Path) -> Any:
    make_model(folder, "llama4_text", **FLOOR)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("longest", [None, 32])
def test_what_counts_the_tokens_of_a_micro_batch_gets_padded_rows(longest: int | None, tmp_path: Path) -> None:
    """Even where no row is as long as the number."""
    model = llama4(tmp_path)
    random = np.random.default_rng(0)
    rows = [Example(ids=random.integers(6, 250, 30).astype(np.int32), trained=np.arange(30) >= 3) for _ in range(6)]
    expected = plainly(model, rows)
    loss = TokenLoss(model)
    layout = fitting_layout(loss, CPU, longest)
    assert layout.rows == "padded"
    runtime = Runtime(device=CPU, max_tokens=layout.budget(1000), layout=layout.rows, border=layout.border)
    np.testing.assert_allclose(sequence_scores(loss, [[row] for row in rows], runtime).nll, expected, rtol=1e-5)


def test_and_generates_as_it_does_alone(tmp_path: Path) -> None:
    """Padding on the left would move the tokens of the shorter prompt."""
    model = llama4(tmp_path)
    random = np.random.default_rng(1)
    lengths = (20, 63, 130)
    prompts = [random.integers(6, 250, length).astype(np.int32) for length in lengths]
    requests = [Request(prompt=prompt, ends=frozenset(), stop=(), max_new_tokens=6) for prompt in prompts]

    class Numbers:
        def decode(self, ids: Any, **_: Any) -> str:
            return " ".join(map(str, ids))

    expected = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        with torch.no_grad():
            for _ in range(6):
                ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        expected.append(Numbers().decode(ids[0, len(prompt) :].tolist()))
    loss = TokenLoss(model)
    way = fitting_decoding(model, None, CPU)
    runtime = Runtime(device=CPU, max_tokens=10_000, decoding=way)
    assert generate(loss, requests, Numbers(), runtime)[0] == expected


class Reaching(LlamaForCausalLM):
    """Attends to the last `config.reach` tokens of the rows, a name of its own."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **more: Any) -> Any:
        reach = self.config.reach[0] if isinstance(self.config.reach, list) else self.config.reach
        if attention_mask is None or attention_mask.dim() == 2:
            length = input_ids.shape[1]
            at = torch.arange(length)
            seen = (at[:, None] >= at) & (at[:, None] - at < reach)
            attention_mask = seen.expand(len(input_ids), 1, length, length)
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **more)


@pytest.mark.parametrize("reach", [100, [100, 100], 29])
def test_a_window_of_any_name_is_cut(reach: int | list[int]) -> None:
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation="sdpa",
    )  # fmt: skip
    config.reach = reach
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reaching(config)
    made = twin_of(model, None, CPU)
    assert made is not None and np.max(made.config.reach) == 8
    layouts = [layout.rows for layout in proven(model, None, CPU)]
    assert "flat" not in layouts and "branches" not in layouts
    inert = twin_of(model, 20, CPU)
    assert inert is not None and np.max(inert.config.reach) == LONGEST


def test_numbers_that_shape_weights_stay() -> None:
    """Position embeddings of an unknown name, say: with another size, the twin would be another model."""

    class Shaped(LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.more = torch.nn.Parameter(torch.zeros(config.extra))

    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    config.extra = 100
    made = twin_of(Shaped(config), None, CPU)
    assert made is not None and made.config.extra == 100


def test_no_row_of_a_proof_is_longer_than_what_has_no_effect() -> None:
    rows = THOROUGH.rows()
    assert max(len(example) for group in rows for example in group) <= LONGEST
    assert max(prompt + new for prompt, new in zip(PROMPTS, NEW_TOKENS, strict=True)) <= LONGEST
    assert sum(len(example) for group in rows for example in group) > 2 * LONGEST


@pytest.mark.parametrize(
    ("scorers", "longest"),
    [
        ([None], 64),
        ([{"name": "loss"}], 64),
        ([{"name": "generate"}], 64 + 256),
        ([{"name": "generate", "max_new_tokens": 7}, {"name": "mine:score", "max_new_tokens": 30}, None], 64 + 30),
    ],
)
def test_the_longest_row_of_a_run_has_the_generated_text(scorers: list[Any], longest: int) -> None:
    """A window of `data.max_length` tokens has an effect on texts that are generated."""
    datasets = [{"id": f"d{n}", "path": "x.jsonl", "scorer": scorer} for n, scorer in enumerate(scorers)]
    config = from_mapping(
        {
            "model": {"name_or_path": "m"}, "datasets": datasets, "data": {"max_length": 64}, "output": "o",
            "method": {"name": "sft"},
        },
        "test",
    )  # fmt: skip
    assert longest_row(config) == settings_of(config).longest == longest
