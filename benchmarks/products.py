"""What a step's matrix products cost by themselves, and how many floating-point operations it takes.

The product rate is that of the step's own products: of each linear layer the forward pass, the gradient of its input
and that of its weight, at the shape of a full micro-batch of real tokens, as bare bf16 `torch.mm`, best of several; of
the output head the same at the trained tokens. Nothing else is in it: no padding, no attention, no norms, no casts of
the weights, no optimizer. A step that reaches 100 % spends all its time in them.

FLOPs of a step: 6 x P x tokens (P: parameters outside embeddings and head) + 6 x vocabulary x width x trained tokens
(the head) + 6 x layers x (heads x head size) x sum of squared lengths (attention, its causal half).

    python products.py JOB.json      # started by common.run_child
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Work
from prepared import batches_of, examples_of, source_of
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from msft.data.examples import Example
from msft.model.folder import ModelSource
from msft.model.open import non_embedding_parameters
from msft.model.token_budget import ON_A_CPU

REPEATS = 7
CALLS = {"cpu": 1, "cuda": 20}
"""Products between two looks at the clock: a GPU's are shorter than waiting for it."""
BUDGET = {"cpu": ON_A_CPU, "cuda": 16384}
"""Tokens of a micro-batch, as the engine takes them by itself."""


def shape_of(source: ModelSource) -> Any:
    """The model without its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(source.name_or_path)
        )


def flops_of(model: Any, examples: Sequence[Example]) -> dict[str, float]:
    """FLOPs of one forward and backward pass over these examples, by kind."""
    config, head = model.config, model.get_output_embeddings()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return {
        "body": 6.0 * non_embedding_parameters(model) * sum(map(len, examples)),
        "head": 6.0 * head.weight.numel() * sum(example.targets for example in examples),
        "attention": 6.0 * config.num_hidden_layers * heads * width * sum(len(example) ** 2 for example in examples),
    }


def seconds_of(model: Any, examples: Sequence[Example], work: Work) -> dict[str, float]:
    """Seconds of the bare products of a forward and backward pass over these examples: of the body, and of the head."""
    tokens, trained = sum(map(len, examples)), sum(example.targets for example in examples)
    rows = min(BUDGET[work.device], tokens)
    rows_of_head = max(1, round(rows * trained / tokens))
    head = model.get_output_embeddings()
    layers = Counter(
        (module.in_features, module.out_features)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    )
    body = sum(count * _layer(rows, *shape, work) for shape, count in layers.items())
    out, width = head.weight.shape
    return {"body": body * tokens / rows, "head": _layer(rows_of_head, width, out, work) * trained / rows_of_head}


def _layer(rows: int, width: int, out: int, work: Work) -> float:
    """Seconds of the three products of one linear layer."""
    kind = torch.bfloat16 if work.bf16 else torch.float32
    inputs, weight, gradient = (
        torch.randn(*shape, device=work.device, dtype=kind) for shape in ((rows, width), (out, width), (rows, out))
    )
    products: tuple[Callable[[], Tensor], ...] = (
        lambda: torch.mm(inputs, weight.t()),
        lambda: torch.mm(gradient, weight),
        lambda: torch.mm(gradient.t(), inputs),
    )
    return sum(_best(product, work.device) for product in products)


def _best(product: Callable[[], Tensor], device: str) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(CALLS[device]):
            product()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - began) / CALLS[device])
    return min(taken)


def measure(work: Work, source: ModelSource) -> dict[str, Any]:
    """FLOPs and product seconds of the timed steps of the work, of one step in the mean."""
    timed = [example for batch in batches_of(work, examples_of(work, source))[work.warm :] for example in batch]
    model = shape_of(source)
    steps = work.steps - work.warm
    flops = {kind: value / steps for kind, value in flops_of(model, timed).items()}
    seconds = {kind: value / steps for kind, value in seconds_of(model, timed, work).items()}
    rate = (flops["body"] + flops["head"]) / sum(seconds.values())
    return {
        "flops_per_step": flops,
        "product_seconds_per_step": seconds,
        "flops_per_second": rate,
        "tokens_per_step": sum(map(len, timed)) / steps,
        "trained_per_step": sum(example.targets for example in timed) / steps,
        "parameters": non_embedding_parameters(model),
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = Work(**{**job["work"], "tasks": tuple(job["work"]["tasks"])})
    if work.threads:
        torch.set_num_threads(work.threads)
    measured = measure(work, source_of(work, Path(job["folder"])))
    Path(job["result"]).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
