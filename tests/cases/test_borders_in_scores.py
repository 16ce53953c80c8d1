"""A token that straddles the border between a prompt and what follows it: likelihoods, generation, run folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds_of_tokenizers import Slow, byte_level, metaspace
from run_folders import with_header
from small_models import make_model, tokenizer_of
from test_where_generation_ends import COLOURS, score, trained
from torch.nn import functional
from transformers import AutoModelForCausalLM

from msft.cli.main import main
from msft.data.encode import STRADDLES, Encoder
from msft.data.examples import Example, Item, Measure
from msft.data.formats import Sample
from msft.data.sources import Row
from msft.forward.batches import RowLayout
from msft.forward.runtime import Runtime, sequence_scores
from msft.model.attention import NAME
from msft.model.token_loss import TokenLoss
from msft.scoring.scorers import score as scores_of

ROW = Row({}, "f", 1, 1)


def alone(model: Any, example: Example) -> float:
    """The log-likelihood of the learned tokens, by the model's own logits for this sequence alone."""
    ids = torch.from_numpy(example.ids.astype(np.int64))
    with torch.no_grad():
        logits = model.eval()(input_ids=ids[None]).logits[0, :-1].double()
    taken = functional.log_softmax(logits, -1).gather(1, ids[1:, None])[:, 0]
    return float(taken[torch.from_numpy(example.trained[1:])].sum())


@pytest.mark.parametrize("layout", ["padded", "branches", "flat"])
@pytest.mark.parametrize(
    ("words", "prompt", "options", "starts"),
    [
        (byte_level(), "Q\nAnswer:", (" x", "x", " y"), 2),
        (byte_level(regex=True), "Answer: ", ("x", "7", " the"), 2),
        (metaspace("first"), "a:", (" x", "x", " the"), 2),
        (Slow(), "b a:", (" x", "x y"), 2),
        (metaspace("never", kind="unigram"), "a ", ("x", "the", "b"), 2),
    ],
)
def test_options_that_begin_within_a_token_have_their_own_likelihoods(
    words: Any, prompt: str, options: tuple[str, ...], starts: int, layout: RowLayout, tmp_path: Path
) -> None:
    make_model(tmp_path, words=words, hidden_size=16, intermediate_size=16)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    model.set_attn_implementation(NAME if layout == "flat" else "sdpa")
    ((*group,),) = Encoder(words).options([Sample(row=ROW, prompt=prompt, completion=options[0], options=options)])
    assert len({int(np.argmax(example.trained)) for example in group}) == starts, "some begin within a token"
    runtime = Runtime(device=torch.device("cpu"), max_tokens=99, layout=layout)
    found = sequence_scores(TokenLoss(model), [group], runtime)
    assert found.nll == pytest.approx([-alone(model, example) for example in group], rel=1e-4)
    item = Item(options=tuple(group), answer=0)
    given = scores_of(TokenLoss(model), {"d": ([item], Measure(name="choice"))}, runtime)[0]["d"]
    each = [math.exp(alone(model, example)) for example in group]
    assert given.items == pytest.approx([each[0] / sum(each)], rel=1e-3)


@pytest.mark.parametrize("scorer", ["{name: exact_match}", '{name: generate, max_new_tokens: 12, stop: [":"]}'])
def test_an_answer_that_begins_within_a_token_is_judged_right(tmp_path: Path, scorer: str) -> None:
    """Generation starts before the token that holds `: `, and the `:` is not taken for the stop sequence."""
    rows = [{"prompt": f"Say {c} {n}:", "completion": f" {c}"} for n in range(3) for c in COLOURS]
    run = trained(tmp_path, rows, metaspace("first"), scorer)
    assert f"d: 12 of 12 training examples: {STRADDLES}" in json.loads(run.notes.read_text())
    assert score(run) == 1


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_run_with_other_tokens_is_refused_by_name(tmp_path: Path, version: str, capsys: Any) -> None:
    rows = [{"prompt": f"Say {n}:", "completion": " x"} for n in range(12)]
    arguments = ["--set", "method.max_epochs=1", "--set", "method.eval_every=1"]
    run = trained(tmp_path, rows, metaspace("first"), "{name: loss}", arguments)
    body = json.loads(run.journal.read_text().splitlines()[0])["body"]
    with_header(run, msft=version, fingerprints=body["fingerprints"] | {"data": {"d": "0" * 64}})
    allow = [f"--allow-changed={field}" for field in ("environment",)]
    capsys.readouterr()
    assert main(["train", str(tmp_path / "config.yaml"), *arguments, "--resume", *allow]) == 2
    said = capsys.readouterr().err
    assert "the data of datasets.d changed" in said
    assert "Fix: restore the data, the tokenizer and the chat template, or start a new run folder" in said
    assert ("msft 0.1.0 tokenised prompts and completions apart" in said) == (version == "0.1.0")


def test_tokens_that_do_not_change_keep_their_fingerprint() -> None:
    """Where no border lies within a token, the tokens are those of the pieces apart, as earlier versions had them."""
    words = tokenizer_of()
    (example,) = Encoder(words).whole([Sample(row=ROW, prompt="Say é:\n", completion=" x <|im_start|> y")])
    apart = [words(text, add_special_tokens=False)["input_ids"] for text in ("Say é:\n", " x <|im_start|> y")]
    assert example.ids.tolist() == [*apart[0], *apart[1], words.eos_token_id]
    assert example.trained.tolist() == [False] * len(apart[0]) + [True] * (len(apart[1]) + 1)
