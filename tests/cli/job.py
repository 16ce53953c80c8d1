"""A whole job made on the spot: a byte-level Llama of a few thousand weights and three sub-datasets in JSON lines."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers_for_tests import tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = """\
model: {{name_or_path: model}}
method: {{name: {method}, eval_every: 0.5{more}}}
datasets:
  - id: copy
    path: copy.jsonl
    validation: {{max_samples: 8}}
    test: {{max_samples: 8}}
    scorer: {{name: exact_match}}
  - {{id: yes no, path: choice.jsonl, validation: {{max_samples: 8}}, test: {{max_samples: 8}}}}
  - id: double
    path: double.jsonl
    template: {{prompt: "{{question}}=", completion: "{{answer}}"}}
    validation: {{max_samples: 8}}
    scorer: {{name: loss}}
data: {{max_length: 64, leaks: warn}}
training: {{batch_size: 8, learning_rate: 0.01}}
output: {output}
"""


def make_model(folder: Path, positions: int = 128) -> None:
    made = tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=len(made), hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=positions, bos_token_id=0, eos_token_id=1,
            tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)


def make_data(folder: Path) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choice("abcd") for _ in range(3)) for _ in range(40)]
    rows = {
        "copy": [{"prompt": f"{w}{i % 7}>", "completion": w[:1]} for i, w in enumerate(words)],
        "choice": [
            {"question": f"{w}{i % 5}?", "choices": ["no", "yes"], "answer": int("a" in w)} for i, w in enumerate(words)
        ],
        "double": [{"question": f"{i}+{i}", "answer": str(2 * i)} for i in range(40)],
    }
    for name, content in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def make_job(folder: Path, method: str = "msft", more: str = "", output: str = "run") -> Path:
    """The configuration's path; model and data beside it."""
    if not (folder / "model").exists():
        make_model(folder / "model")
        make_data(folder)
    config = folder / f"{output}.yaml"
    config.write_text(CONFIG.format(method=method, more=more, output=folder / output))
    return config
