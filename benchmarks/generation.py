"""What msft generates, held against transformers' own `generate`, item by item; and both wall-clocks.

Ours in batches, theirs one prompt at a time (no padding: the reference) and, for the clock, in left-padded batches.

    python benchmarks/generation.py MODEL_FOLDER gsm8k.jsonl --items 100 --max-new-tokens 64 --out generation.json

Each line of the file has `prompt`, `completion` (which ends in `#### answer`) and `split`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msft.data.examples import Measure
from msft.data.extract import found_in, reference_of, same, until
from msft.engine.decoding import decoding_of
from msft.forward.runtime import Runtime
from msft.model.open import ModelSource, load_model, load_tokenizer
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Request, generate

CPU = torch.device("cpu")


def theirs(model: Any, tokenizer: Any, prompts: list[str], ends: frozenset[int], most: int, batch: int) -> list[str]:
    texts: list[str] = []
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    for start in range(0, len(prompts), batch):
        read = tokenizer(prompts[start : start + batch], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            said = model.generate(
                **read,
                do_sample=False,
                max_new_tokens=most,
                eos_token_id=sorted(ends),
                pad_token_id=tokenizer.pad_token_id,
            )
        for tokens in said[:, read["input_ids"].shape[1] :].tolist():
            end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
            texts.append(tokenizer.decode(tokens[:end], clean_up_tokenization_spaces=False))
    return texts


def unequal(ours: list[Any], theirs: list[Any]) -> list[int]:
    """Numbers of the items."""
    return [number for number, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=1024, help="ours: tokens of a training micro-batch")
    parser.add_argument("--batch-size", type=int, default=16, help="theirs, for the clock; 0: none")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    source = ModelSource(name_or_path=given.model)
    tokenizer, model = load_tokenizer(source), load_model(source)
    model.eval()
    wrapped, decoding = TokenLoss(model), decoding_of(model, source)
    lines = [json.loads(line) for line in given.file.read_text(encoding="utf-8").splitlines()]
    shown = "".join(
        f"{r['prompt']}{r['completion']}\n\n" for r in [r for r in lines if r["split"] == "train"][: given.shots]
    )
    rows = [row for row in lines if row["split"] == given.split][: given.items]
    prompts = [shown + row["prompt"] for row in rows]
    measure = Measure(name="generate", extract="####", stop=("\n\n",), max_new_tokens=given.max_new_tokens)
    requests = [
        Request(
            prompt=np.array(tokenizer(prompt, add_special_tokens=False)["input_ids"], np.int32),
            ends=decoding.eos,
            stop=measure.stop,
            max_new_tokens=measure.max_new_tokens,
        )
        for prompt in prompts
    ]
    seconds: dict[str, float] = {}
    said: dict[str, list[str]] = {}
    began = time.perf_counter()
    said["ours"], _ = generate(wrapped, requests, decoding.words, Runtime(device=CPU, max_tokens=given.max_tokens))
    seconds["ours"] = time.perf_counter() - began
    for name, batch in (("theirs", 1), ("theirs_batched", given.batch_size))[: 2 if given.batch_size else 1]:
        began = time.perf_counter()
        texts = theirs(model, tokenizer, prompts, decoding.eos, given.max_new_tokens, batch)
        seconds[name] = time.perf_counter() - began
        said[name] = [until(text, measure.stop) for text in texts]
    references = [reference_of(row["completion"], None, measure) for row in rows]
    right = {
        name: [
            same(found_in(text, measure), reference, measure) for text, reference in zip(texts, references, strict=True)
        ]
        for name, texts in said.items()
    }
    peers = [name for name in said if name != "ours"]
    result = {
        "items": len(rows),
        "shots": given.shots,
        "max_new_tokens": given.max_new_tokens,
        "texts_that_differ": {name: unequal(said["ours"], said[name]) for name in peers},
        "verdicts_that_differ": {name: unequal(right["ours"], right[name]) for name in peers},
        "accuracy": {name: float(np.mean(values)) for name, values in right.items()},
        "with_an_answer": sum(found_in(text, measure) is not None for text in said["ours"]),
        "seconds": seconds,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
