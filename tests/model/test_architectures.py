"""Every causal architecture of transformers: no row touches another; no text, adapter or merge is silently wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import architectures  # noqa: E402

pytestmark = pytest.mark.cpu("a small twin of each architecture is judged on the CPU, on any machine")

SAMPLE = {
    "llama": "rows end to end",
    "mistral": "rows end to end",
    "gemma2": "rows end to end",
    "gemma3_text": "rows end to end",
    "gpt_oss": "rows end to end",
    "llama4_text": "padded rows",
    "olmo": "rows end to end",
    "olmo3": "rows end to end",
    "qwen2 (window)": "rows end to end",
    "phi3 (longrope)": "rows end to end, those above 8 tokens apart",
    "lfm2": "padded rows",
    "jamba": "padded rows",
    "qwen3_5_text": "padded rows",
    "inkling_text": "padded rows",
    "mpt": "padded rows",
    "doge": "one row at a time",
    "cpmant": "refused",
}
"""Of each kind of layer one: attention, window, chunk, convolution, state, experts, and what goes wrong with them."""


@pytest.mark.parametrize("name", SAMPLE)
def test_a_step_texts_and_adapters_are_those_of_single_rows(name: str) -> None:
    found = architectures.judge(name)
    assert not found.wrong and found.layout == SAMPLE[name]


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_the_table_of_the_documentation_is_what_is_seen() -> None:
    found = [architectures.judge(name) for name in architectures.names()]
    assert not [verdict for verdict in found if verdict.wrong]
    assert architectures.markdown(found) in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
