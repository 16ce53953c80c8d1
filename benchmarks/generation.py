"""What a new token costs in generation: with a cache that grows, and on fixed arrays, whose step a GPU records.

    python benchmarks/generation.py [--model FOLDER] [--rows 64] [--prompt 100] [--new 128] [--repeats 3] [--out FILE]

Without a model, one of the size of SmolLM2-135M with random weights. The model is as in a run on the device: bf16 on a
GPU, with the attention of its rows, and deterministic. The two take turns; milliseconds of a step for all rows, the
prompts' own pass included, medians; and whether both say the same. `gpu.py` runs it as its part `generation`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import Work
from prepared import SYNTHETIC, source_of
from transformers import AutoModelForCausalLM

from msft.engine.batched_decoding import fixed_decoding
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.engine.setup import deterministic, runtime_for
from msft.forward.runtime import Runtime
from msft.model.fixed_decoding import FixedSteps, fixed_steps
from msft.model.precision import narrow
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Request, generate

SETTINGS = EngineSettings(seed=0, batch_size=1, horizon=1, learning_rate=0, max_tokens_per_microbatch=1)


class Numbers:
    def decode(self, token_ids: Any, **_: bool) -> str:
        return " ".join(map(str, token_ids))


def opened(name: str, scratch: Path, device: torch.device) -> TokenLoss:
    """The model as a run has it on the device when it scores."""
    folder = source_of(Work(model=name, data=SYNTHETIC, steps=1, device=device.type), scratch).name_or_path
    loss = TokenLoss(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)).eval()
    deterministic(device, SETTINGS)
    runtime_for(Processes(), SETTINGS, loss, generates=True)  # gives the model its attention
    if device.type == "cuda":
        narrow(loss.model)
    return loss


def measured(loss: TokenLoss, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
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
        "growing": Runtime(device=device, max_tokens=room),
        "fixed": Runtime(device=device, max_tokens=room, steps=steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[str]] = {}
    for _ in range(given.repeats):
        for name, runtime in ways.items():
            began = time.monotonic()
            texts[name] = generate(loss, asked, Numbers(), runtime)[0]
            seconds[name].append(time.monotonic() - began)
    return {
        "rows": given.rows,
        "ms_a_token": {name: 1000 * median(taken) / given.new for name, taken in seconds.items()},
        "same_texts": sum(one == other for one, other in zip(*texts.values(), strict=True)),
        "trial": fixed_decoding(loss.model, None, device),
        "recorded": [each is not None and each._graph is not None for each in made],
        "refused": sorted({each.refused for each in made if each is not None and each.refused}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:smollm2-135m", help="or a folder (default: %(default)s)")
    for name, default in (("rows", 64), ("prompt", 100), ("new", 128), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    parser.add_argument("--scratch", type=Path, default=Path("build/generation"), help="for the random model")
    given = parser.parse_args()
    device = Processes().device
    found = measured(opened(given.model, given.scratch, device), given, device)
    print(json.dumps(found, indent=1))
    if given.out is not None:
        given.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
