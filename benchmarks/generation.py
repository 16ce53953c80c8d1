"""What a new token costs in generation: with a cache that grows, and on fixed arrays, whose step a GPU records.

    python benchmarks/generation.py [--model FOLDER] [--rows 64] [--prompt 100] [--new 128] [--repeats 3]

Without a model, one of the size of SmolLM2-135M with random weights. The two take turns; milliseconds of a step for all
rows, the prompts' own pass included, medians; and whether both say the same.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from msft.engine.batched_decoding import fixed_decoding
from msft.forward.runtime import Runtime
from msft.model.fixed_decoding import FixedSteps, fixed_steps
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Request, generate

SMALL = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True,
)  # fmt: skip


class Numbers:
    def decode(self, token_ids: Any, **_: bool) -> str:
        return " ".join(map(str, token_ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    for name, default in (("rows", 64), ("prompt", 100), ("new", 128), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = LlamaForCausalLM(SMALL) if given.model is None else AutoModelForCausalLM.from_pretrained(given.model)
    loss = TokenLoss(model.to(device, torch.bfloat16))
    random = np.random.default_rng(0)
    lengths = random.integers(given.prompt // 2, given.prompt + 1, given.rows)
    prompts = [random.integers(10, 1000, length).astype(np.int32) for length in lengths]
    asked = [Request(prompt=ids, ends=frozenset(), stop=(), max_new_tokens=given.new) for ids in prompts]
    made: list[FixedSteps | None] = []

    def steps(*what: Any) -> FixedSteps | None:
        made.append(fixed_steps(*what))
        return made[-1]

    room = given.rows * (given.prompt + given.new)
    ways = {
        "a cache that grows": Runtime(device=device, max_tokens=room),
        "fixed arrays": Runtime(device=device, max_tokens=room, steps=steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[str]] = {}
    for _ in range(given.repeats):
        for name, runtime in ways.items():
            began = time.monotonic()
            texts[name] = generate(loss, asked, Numbers(), runtime)[0]
            seconds[name].append(time.monotonic() - began)
    print(f"{given.rows} rows of up to {given.prompt} tokens, {given.new} new ones each, {device}")
    for name, taken in seconds.items():
        print(f"{name}: {1000 * median(taken) / given.new:.2f} ms a token")
    same = sum(one == other for one, other in zip(*texts.values(), strict=True))
    print(f"the same texts: {same} of {given.rows}; a trial on the model's twin: {fixed_decoding(model, None, device)}")
    print("recorded:", [each is not None and each._graph is not None for each in made], {e.refused for e in made if e})


if __name__ == "__main__":
    main()
