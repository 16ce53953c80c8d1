"""A model that was trained under a chat template stops, with plain transformers, where the training text stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from published_templates import NAMES, TOKENS, words_of
from small_models import make_model
from test_where_generation_ends import COLOURS, chats
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft.cli.main import main
from msft.data.chat_template import beginning
from msft.record.run_folder import RunFolder

CONFIG = """\
model: {{name_or_path: {folder}/model, precision: fp32}}
method: {{name: sft, max_epochs: 30, eval_every: 30, select: last}}
datasets:
  - {{id: d, path: {folder}/d.jsonl, validation: {{path: {folder}/v.jsonl}}, scorer: {{name: loss}}}}
data: {{leaks: warn, max_length: 4096}}
training: {{batch_size: 4, learning_rate: 1e-2}}
output: {folder}/run
"""
Chat = list[dict[str, Any]]


def several_turns() -> list[Chat]:
    """Conversations of two answers."""
    made = []
    for number in range(3):
        for colour in COLOURS:
            first = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yes"}]
            asks = {"role": "user", "content": f"Say {colour} {number}"}
            made.append([*first, asks, {"role": "assistant", "content": colour}])
    return made


def final_of(folder: Path, words: Any, conversations: Sequence[Chat]) -> Path:
    """The final model of a run that learned the conversations by heart."""
    make_model(folder / "model", words=words, max_position_embeddings=4096)
    for name in ("d", "v"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"messages": c}) + "\n" for c in conversations))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["train", str(folder / "config.yaml")]) == 0
    return RunFolder(folder / "run").final


@torch.no_grad()
def said_and_learned(final: Path, conversations: Sequence[Chat]) -> list[tuple[str, str]]:
    """What the final model says to the text before the last answer, and what training shows it to say there.

    The text is the generation prompt, as far as the training text has it.
    """
    model, words = AutoModelForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    found = []
    for turns in conversations:
        whole = words.apply_chat_template(turns, tokenize=False)
        asked = words.apply_chat_template(turns[:-1], add_generation_prompt=True, tokenize=False)
        begin = beginning([whole, asked])
        ids = words(begin, add_special_tokens=False, return_tensors="pt")
        told = model.generate(**ids, max_new_tokens=60, do_sample=False)[0][ids["input_ids"].shape[1] :]
        found.append((str(words.decode(told)), whole.removeprefix(begin)))
    return found


def ends_of(final: Path) -> list[str]:
    words = AutoTokenizer.from_pretrained(final)
    known = json.loads((final / "generation_config.json").read_text())["eos_token_id"]
    return [str(token) for token in words.convert_ids_to_tokens(known if isinstance(known, list) else [known])]


def check_that_it_stops(final: Path, conversations: Sequence[Chat]) -> str:
    """Each text that is said ends with the first special token that follows the answers in training; the token."""
    words = AutoTokenizer.from_pretrained(final)
    ends, right = set(), 0
    for turns, (said, learned) in zip(conversations, said_and_learned(final, conversations), strict=True):
        before, answer, after = learned.rpartition(turns[-1]["content"])
        found = [token for token in (*TOKENS.findall(after), "</s>") if token in after]
        end = min(found, key=after.index, default=words.eos_token)
        assert said.endswith(end), f"{said!r} goes on"
        right += said.startswith(before + answer)
        ends.add(end)
    assert right, "the model has learned no answer"
    (end,) = ends
    assert end in ends_of(final)
    return str(end)


ENDS = {
    "deepseekv3": "<｜end▁of▁sentence｜>", "gemma3": "<end_of_turn>", "glm4moe": "<|endoftext|>",
    "gptoss": "<|return|>", "llama3": "<|eot_id|>", "llama3_2": "<|eot_id|>", "mistral_v7_tekken": "<|endoftext|>",
    "phi3": "<|end|>",
} | dict.fromkeys(
    ("lfm2_2_5", "nemotron_3_nano", "phi_4", "qwen2_5", "qwen3", "qwen3_5_think", "qwen3_instruct_2507",
     "qwen3_training"), "<|im_end|>",
)  # fmt: skip
"""GLM ends no turn: the end-of-sequence token follows each. Phi-3 writes another token after its first."""
QUICK = ("glm4moe-several turns", "phi3-one turn", "qwen3-one turn", "nemotron_3_nano-several turns")
CASES = [
    pytest.param(name, several, id=found, marks=() if found in QUICK else pytest.mark.campaign)
    for name in NAMES
    for several, found in ((False, f"{name}-one turn"), (True, f"{name}-several turns"))
]


@pytest.mark.parametrize(("name", "several"), CASES)
def test_the_final_model_stops_where_the_training_text_stopped(name: str, several: bool, tmp_path: Path) -> None:
    """A base model's tokenizer has another end-of-sequence token than the template's turns."""
    conversations = several_turns() if several else [row["messages"] for row in chats()]
    final = final_of(tmp_path, words_of(name, eos="<|endoftext|>"), conversations)
    end = check_that_it_stops(final, conversations[:4])
    assert end == ENDS[name]
    if several:
        assert check_that_it_stops(final, [turns[:2] for turns in conversations[:1]]) == end
