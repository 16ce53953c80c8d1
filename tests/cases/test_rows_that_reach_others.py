"""Models whose rows reach others where nothing looks: a row's score is the same alone and beside longer ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import make_model, plainly
from torch.nn import functional
from transformers import AutoModelForCausalLM

from msft.core.errors import ModelError
from msft.data.examples import Example
from msft.engine.batched_decoding import fitting_decoding
from msft.forward.runtime import Runtime, sequence_scores
from msft.model import attention
from msft.model.isolation import last_mlp_skips, proven, twin_of
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss

CPU = torch.device("cpu")
LONGROPE = {
    "original_max_position_embeddings": 64,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
        "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 4, 8],
    },
}  # fmt: skip
CHUNKS = {
    "head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 16, "num_hidden_layers": 4,
    "intermediate_size_mlp": 64,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": ("phi3", LONGROPE),
    "chunks": ("llama4_text", CHUNKS),
    "window": ("mistral", {"sliding_window": 16}),
    "window of some layers": (
        "gemma3_text",
        {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8},
    ),
    "convolution": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "state": (
        "qwen3_5_text",
        {
            "head_dim": 8, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        },
    ),
}  # fmt: skip


def model_of(case: str, folder: Path) -> Any:
    kind, values = CASES[case]
    make_model(folder, kind, **values)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("case", CASES)
def test_a_row_scores_the_same_alone_and_beside_others(case: str, tmp_path: Path) -> None:
    model = model_of(case, tmp_path)
    random = np.random.default_rng(0)
    rows = [
        Example(ids=random.integers(6, 250, n).astype(np.int32), trained=np.arange(n) >= 3)
        for n in (20, 30, 64, 66, 90, 130)
    ]
    expected = plainly(model, rows)
    loss = TokenLoss(model)
    layout = fitting_layout(loss, CPU)
    runtime = Runtime(device=CPU, max_tokens=layout.budget(1000), layout=layout.rows, border=layout.border)
    found = sequence_scores(loss, [[example] for example in rows], runtime).nll
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_window_that_no_row_is_longer_than_is_left_alone(tmp_path: Path) -> None:
    """A chunk of 16 tokens would need padded rows with 17 of them; a branch in one is refused only then."""
    model = model_of("window", tmp_path)
    for longest, cut in ((16, False), (17, True), (None, True)):
        made = twin_of(model, longest, CPU)
        assert made is not None and (made.config.sliding_window == 8) is cut
    assert [layout.rows for layout in proven(model, 16, CPU)][:3] == ["flat", "branches", "padded"]
    assert [layout.rows for layout in proven(model, 17, CPU)][:2] == ["flat", "padded"]


def test_why_a_layout_is_not_used_is_said(tmp_path: Path) -> None:
    (first, *_) = proven(model_of("convolution", tmp_path), None, CPU)
    assert first.rows == "padded" and "rows end to end: a likelihood differs by" in first.why


def test_tokens_that_a_convolution_reads_are_not_skipped() -> None:
    """Inkling has one behind its last MLP, whose gradient was wrong where tokens were skipped."""
    import architectures

    inkling, llama = (architectures.small(name) for name in ("inkling_text", "llama"))
    assert not last_mlp_skips(inkling, None, CPU) and last_mlp_skips(llama, None, CPU)


def test_generation_is_held_against_the_plain_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not against the attention that is tried: here one that forgets the soft cap of the scores."""
    make_model(tmp_path, "gemma2", head_dim=8, sliding_window=16, attn_logit_softcapping=0.5)
    given = attention._by_mask

    def forgetful(query: Any, key: Any, value: Any, mask: Any, scores: Any, dropout: float) -> Any:
        return given(query, key, value, mask, replace(scores, cap=None), dropout)

    for forgets, longest in ((False, 100), (True, 101)):  # another length: what was tried is remembered
        model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert fitting_layout(TokenLoss(model), CPU, longest).rows == "flat"
        if not forgets:
            assert fitting_decoding(AutoModelForCausalLM.from_pretrained(tmp_path), longest, CPU) == "dropped"
            continue
        monkeypatch.setattr(attention, "_by_mask", forgetful)
        with pytest.raises(ModelError, match="with its cache it continues prompts otherwise than without"):
            fitting_decoding(AutoModelForCausalLM.from_pretrained(tmp_path), longest, CPU)


@pytest.mark.parametrize("lengths", [(58, 62, 66, 90), (66, 40, 65, 64), (30, 31, 60)])
def test_options_on_both_sides_of_a_border(lengths: tuple[int, ...], tmp_path: Path) -> None:
    """The options of a choice share a row, which is longer than each of them; beside it are long and short rows."""
    model = model_of("longrope", tmp_path)
    random = np.random.default_rng(2)
    trunk, others = random.integers(6, 250, 28), (20, 64, 65, 80)
    groups = [
        [
            Example(ids=np.append(trunk, random.integers(6, 250, n - 28)).astype(np.int32), trained=np.arange(n) >= 28)
            for n in lengths
        ],
        *([Example(ids=random.integers(6, 250, n).astype(np.int32), trained=np.arange(n) >= 3)] for n in others),
    ]
    expected = []
    with torch.no_grad():
        for example in (example for group in groups for example in group):
            ids = torch.from_numpy(example.ids.astype(np.int64))[None]
            at = np.flatnonzero(example.trained)
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0, at - 1]
            expected.append(float(functional.cross_entropy(logits, ids[0, at], reduction="sum")))
    loss = TokenLoss(model)
    layout = fitting_layout(loss, CPU)
    assert layout.rows == "flat" and layout.border == 64
    for most in (1000, 100):
        runtime = Runtime(device=CPU, max_tokens=most, layout=layout.rows, border=layout.border)
        np.testing.assert_allclose(sequence_scores(loss, groups, runtime).nll, expected, rtol=1e-5)
