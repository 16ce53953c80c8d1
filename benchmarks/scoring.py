"""Multiple choice scored by msft and by lm-evaluation-harness: the same answers, and at what cost.

Both read the same strings of the same items with the same weights in fp32 and choose the likeliest option; tokenising
counts. They take turns, and the ratio is that of the medians. Needs `pip install lm_eval`.

    python benchmarks/scoring.py MODEL_FOLDER A.jsonl B.jsonl ... --items 100 --repeats 3 --out scoring.json

Each line of a file has `question`, `choices` (texts), `answer` (position of the right one) and `split`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from msft.data.encode import Encoder
from msft.data.examples import Item, Measure
from msft.data.formats import Sample
from msft.data.sources import Row
from msft.forward.runtime import Runtime, sequence_scores
from msft.model.folder import ModelSource
from msft.model.open import load_model, load_tokenizer
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.scoring.scorers import task_scores

CLEAR = 1e-3
"""Nats by which the best option leads where both must choose the same."""


def samples_of(file: Path, split: str, items: int) -> list[Sample]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        Sample(
            row=Row(row, str(file), None, number),
            prompt=f"Question: {row['question']}\nAnswer:",
            options=tuple(f" {choice}" for choice in row["choices"]),
            answer=row["answer"],
        )
        for number, row in enumerate([row for row in rows if row["split"] == split][:items], 1)
    ]


class Ours:
    def __init__(self, folder: str, max_tokens: int) -> None:
        source = ModelSource(name_or_path=folder)
        self.encoder = Encoder(load_tokenizer(source))
        self.model = TokenLoss(load_model(source)).eval()
        device = torch.device("cpu")
        self.runtime = Runtime(device=device, max_tokens=max_tokens, layout=fitting_layout(self.model, device).rows)

    def __call__(self, samples: list[Sample]) -> tuple[list[list[float]], float]:
        """Log-likelihood of each option of each item, and the accuracy."""
        pairs = zip(samples, self.encoder.options(samples), strict=True)
        items = [Item(options=options, answer=sample.answer) for sample, options in pairs]
        found = sequence_scores(self.model, [item.options for item in items], self.runtime)
        accuracy = task_scores(items, Measure(name="choice"), found).report
        return cut((-found.nll).tolist(), samples), accuracy


class Theirs:
    def __init__(self, folder: str, batch_size: int) -> None:
        self.model = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=batch_size)

    def __call__(self, samples: list[Sample]) -> tuple[list[list[float]], float]:
        pairs = [(sample.prompt, option) for sample in samples for option in sample.options]
        asked = [
            Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
            for number, pair in enumerate(pairs)
        ]
        values = cut([value for value, _ in self.model.loglikelihood(asked, disable_tqdm=True)], samples)
        right = [int(np.argmax(value)) == sample.answer for value, sample in zip(values, samples, strict=True)]
        return values, float(np.mean(right))


def cut(values: list[float], samples: list[Sample]) -> list[list[float]]:
    ends = np.cumsum([len(sample.options) for sample in samples])
    return [part.tolist() for part in np.split(np.array(values), ends[:-1])]


def agreement(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, Any]:
    """Of the items where one option clearly leads, those where the two choose differently; and the largest gap."""
    pairs = list(zip(ours, theirs, strict=True))
    clear = [pair for pair in pairs if min(np.diff(np.sort(values)[-2:])[0] for values in pair) > CLEAR]
    return {
        "clear": len(clear),
        "differ": sum(int(np.argmax(a)) != int(np.argmax(b)) for a, b in clear),
        "largest_gap_nats": max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=1024, help="ours: tokens of a micro-batch")
    parser.add_argument("--batch-size", type=int, default=16, help="theirs: sequences of a batch")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    scorers = {"ours": Ours(given.model, given.max_tokens), "theirs": Theirs(given.model, given.batch_size)}
    sets = {file.stem: samples_of(file, given.split, given.items) for file in given.files}
    for scorer in scorers.values():  # what is only done once is not timed
        scorer(next(iter(sets.values()))[:4])
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    found: dict[str, dict[str, Any]] = {}
    for _ in range(given.repeats):
        for name, scorer in scorers.items():
            began = time.perf_counter()
            found[name] = {task: scorer(samples) for task, samples in sets.items()}
            seconds[name].append(time.perf_counter() - began)
    result = {
        "items": {task: len(samples) for task, samples in sets.items()},
        "threads": torch.get_num_threads(),
        "max_tokens": given.max_tokens,
        "batch_size": given.batch_size,
        "accuracy": {name: {task: accuracy for task, (_, accuracy) in by.items()} for name, by in found.items()},
        "agreement": {task: agreement(found["ours"][task][0], found["theirs"][task][0]) for task in sets},
        "seconds": seconds,
        "ratio": statistics.median(seconds["ours"]) / statistics.median(seconds["theirs"]),
    }
    text = json.dumps(result, indent=1)
    print(text)
    print(f"ours takes {result['ratio']:.2f} of their wall-clock")
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
