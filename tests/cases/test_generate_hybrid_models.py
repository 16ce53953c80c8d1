"""Reported: generating ended in a traceback as soon as one prompt of a batch ended before another, in models whose
caches cannot drop rows. Their texts are right, or they are refused before anything is written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import tokenizer_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft.cli.main import main
from msft.data.extract import until
from msft.engine.batched_decoding import fitting_decoding
from msft.forward.runtime import Runtime
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.record.run_folder import RunFolder
from msft.report.story import read_story
from msft.scoring.generation import Request, generate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import architectures

CPU = torch.device("cpu")
WAYS = {
    "qwen3_5_text": "kept", "lfm2": "kept", "falcon_h1": "kept", "bart": "alone", "mamba": "refused",
    "qwen3_next": "kept", "qwen3_5_moe_text": "kept", "jamba": "kept", "bamba": "kept", "granitemoehybrid": "kept",
    "nemotron_h": "kept", "lfm2_moe": "kept", "trocr": "alone", "mamba2": "refused", "falcon_mamba": "refused",
    "recurrent_gemma": "refused", "rwkv": "refused", "llama": "dropped",
}  # fmt: skip
"""How a batch of prompts is continued (`forward/runtime.py`, RowsOfABatch)."""
QUICK = ("qwen3_5_text", "falcon_h1", "bart", "mamba")
CASES = [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.campaign) for kind in WAYS]
MOST, STOP = 12, ("e", "do")
CONFIG = """\
model: {{name_or_path: {model}, precision: fp32}}
method: {{name: sft, max_epochs: 10, eval_every: 5}}
datasets:
  - {{id: d, path: {data}/d.jsonl, validation: {{path: {data}/v.jsonl}}, scorer: {scorer}}}
data: {{leaks: warn, max_length: 48}}
training: {{batch_size: 4, learning_rate: 1e-2}}
output: {output}
"""
GENERATE = f'{{name: generate, max_new_tokens: {MOST}, stop: ["e", "do"], extract: {{regex: "[a-z]+"}}}}'
RECORDS = f'{{name: "writes_down:all_texts", max_new_tokens: {MOST}, stop: ["e", "do"]}}'
SCORER = """\
import json

def all_texts(answers):
    with open("texts.json", "w") as file:
        json.dump([answer["generated"] for answer in answers], file)
    return [1.0] * len(answers)
"""


def rows() -> list[dict[str, str]]:
    """Prompts of 3 to 21 tokens, whose answers have 1 to 8."""
    answers = ("red", "a", "be", "pink", "greenish", "so")
    return [{"prompt": f"say{' so' * (n % 7)}:", "completion": f" {answers[n % 6]}"} for n in range(12)]


def config(folder: Path, scorer: str, name: str = "config") -> str:
    text = CONFIG.format(model=folder / "model", data=folder, scorer=scorer, output=folder / "run")
    (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{name}.yaml")


@torch.no_grad()
def plainly(model: Any, words: Any, prompt: str) -> str:
    """The greedy continuation of one prompt, read anew for every token, up to an end or a stop sequence."""
    ids = words(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    said: list[int] = []
    while len(said) < MOST:
        token = int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax())
        if token in (words.eos_token_id, model.generation_config.eos_token_id):
            break
        said.append(token)
        text = words.decode(said)
        if cut := [text.index(stop) for stop in STOP if stop in text]:
            return text[: min(cut)]
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return str(words.decode(said))


def batched(model: Any, words: Any, prompts: Sequence[str]) -> tuple[str, list[str]]:
    """The texts of all prompts in one batch, and how the batch is shared."""
    way = fitting_decoding(model, 48, CPU)
    requests = [
        Request(
            prompt=np.array(words(prompt)["input_ids"], np.int32),
            ends=frozenset({words.eos_token_id}),
            stop=STOP,
            max_new_tokens=MOST,
        )
        for prompt in prompts
    ]
    loss = TokenLoss(model)
    border = fitting_layout(loss, CPU).border
    return way, generate(loss, requests, words, Runtime(device=CPU, max_tokens=4096, decoding=way, border=border))[0]


@pytest.mark.parametrize("kind", CASES)
def test_texts_are_those_of_single_prompts_or_refused_before_training(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = architectures.small(kind)
    assert not isinstance(made, str), made
    words = tokenizer_of(letters="abcdefghijklmnopqrstuvwxyz :")
    made.config.eos_token_id = made.generation_config.eos_token_id = words.eos_token_id
    made.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    for name in ("d", "v"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    asks = config(tmp_path, GENERATE)

    if WAYS[kind] == "refused":
        said = []
        for command in ("check", "train"):
            assert main([command, asks]) == 2
            said.append(capsys.readouterr().err.splitlines()[-1])
        assert said[0] == said[1] and "cannot generate here" in said[0] and "Fix: score by loss" in said[0]
        assert not (tmp_path / "run").exists()
        return

    assert main(["check", asks]) == 0 and main(["train", asks]) == 0
    run = RunFolder(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "writes_down.py").write_text(SCORER)
    assert main(["eval", str(run.final), "--config", config(tmp_path, RECORDS, "texts")]) == 0
    found = json.loads((tmp_path / "texts.json").read_text())

    model = AutoModelForCausalLM.from_pretrained(run.final).eval()
    words = AutoTokenizer.from_pretrained(run.final)
    prompts = [row["prompt"] for row in rows()]
    expected = [plainly(model, words, prompt) for prompt in prompts]
    assert found == expected
    assert len({len(text) for text in expected}) > 1, "all texts end at the same place"
    right = [_word(said) == _word(until(row["completion"], STOP)) for said, row in zip(expected, rows(), strict=True)]
    assert (read_story(run).best_known.reports or {})["d"] == pytest.approx(sum(right) / len(right))
    assert batched(model, words, prompts) == (WAYS[kind], expected)


def _word(text: str) -> str:
    return (re.findall("[a-z]+", text) or [""])[-1]
