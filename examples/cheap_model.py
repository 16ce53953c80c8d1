"""A language model that costs nothing: 0.22 million parameters, pretrained in minutes on one core.

    python examples/cheap_model.py [FOLDER]            (default: cheap, beside this file)
    python examples/cheap_model.py [FOLDER] --noisy    (only FOLDER/data/*_noisy.jsonl, where the rest exists: a second)

writes FOLDER/model, an ordinary Hugging Face folder, and FOLDER/data/*.jsonl, the sub-datasets of examples/cheap.yaml
and examples/uneven.yaml. Files named *_noisy have wrong answers in training and validation, for examples/noisy.yaml.
The model has been taught one set of reasoning-gym tasks and is fine-tuned on another, whose skills are related: adding
helps with equations, greatest common divisors help with fractions. Prompts are written short ("gcd 12 18", not a
paragraph), because what makes hundreds of runs affordable is the number of tokens. All is decided by the seeds below.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import reasoning_gym
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STEPS, BATCH, LEARNING_RATE, WARMUP = 6000, 32, 3e-3, 200
POOL = 20_000
"""Examples made of each pretraining task; they come back when they are used up."""
LONGEST = 32
"""Characters of an example."""
SPLITS = {"train": 400, "validation": 1000, "test": 400}
"""Rows of each sub-dataset; the configuration takes what it wants of them."""
NOISY, WRONG = ("gcd", "simple_equations", "count_bits"), 0.4
"""Sub-datasets that also exist with wrong answers, and the share of those in the training and validation rows. One is
learned quickly, one is near to what the model knows, and one is new."""


class Task(NamedTuple):
    """A reasoning-gym task, its arguments, and how one of its entries becomes a short question."""

    name: str
    config: dict[str, Any]
    question: Callable[[dict[str, Any], str], str]
    """From the entry's metadata and its own question."""
    answer: Callable[[dict[str, Any], str], str] = lambda made, answer: answer


def whole(numbers: list[str]) -> str:
    """['14.0', '3.0'] as 14 3."""
    return " ".join(str(round(float(number))) for number in numbers)


PRETRAINING = (
    Task("chain_sum", {"max_terms": 2, "max_digits": 2}, lambda m, q: f"{m['expression']} ="),
    Task("products", {"max_digits": 1}, lambda m, q: f"{m['expression']} ="),
    Task("gcd", {"max_value": 40}, lambda m, q: "gcd {} {}".format(*m["numbers"])),
    Task("spell_backward", {"max_word_len": 5}, lambda m, q: f"back {m['word']}"),
    Task(
        "number_sorting",
        {"max_numbers": 4, "max_decimals": 0, "min_value": 0, "max_value": 30},
        lambda m, q: f"{m['direction'][:3]} {whole(m['original_numbers'])}",
        lambda m, a: whole(m["sorted_numbers"]),
    ),
    Task(
        "number_filtering",
        {"max_numbers": 4, "max_decimals": 0, "min_value": 0, "max_value": 30},
        lambda m, q: f"{m['operation']} {whole([m['filter_value']])}: {whole(m['original_numbers'])}",
        lambda m, a: whole(m["result"]) or "none",
    ),
    Task(
        "letter_counting",
        {"min_words": 1, "max_words": 2},
        lambda m, q: f"count {m['target_letter']} in {' '.join(m['span'])}",
    ),
    Task(
        "caesar_cipher",
        {"min_words": 1, "max_words": 1, "max_rotation": 3},
        lambda m, q: f"shift {m['rotation']} {m['cipher_text']}",
    ),
    Task(
        "word_sequence_reversal",
        {"min_words": 2, "max_words": 2},
        lambda m, q: f"reverse {' '.join(m['words'])}",
        lambda m, a: a.replace(",", ""),
    ),
    Task(
        "number_sequence",
        {"max_terms": 5, "min_value": -20, "max_value": 20},
        lambda m, q: q,
    ),
)  # fmt: skip

FINE_TUNING = (
    # What was learned in pretraining, asked for in other words: these are picked up quickly, and lost again.
    Task(
        "basic_arithmetic",
        {
            "min_terms": 2,
            "max_terms": 2,
            "max_digits": 2,
            "operators": ("+", "-"),
            "allow_parentheses": False,
            "allow_negation": False,
        },
        lambda m, q: f"calc {m['expression']} =",
    ),
    Task("gcd", {"max_value": 60}, lambda m, q: "share gcd {} {}".format(*m["numbers"])),
    Task("spell_backward", {"max_word_len": 5}, lambda m, q: f"word back {m['word']}"),
    Task(
        "number_sequence",
        {"max_terms": 5, "min_value": -20, "max_value": 20},
        lambda m, q: f"next: {q}",
    ),
    # Near to it: the digits have moved, or the unknown has.
    Task(
        "simple_equations",
        {"max_terms": 2, "max_value": 50, "operators": ("+", "-"), "operators_weights": [0.5, 0.5]},
        lambda m, q: m["equation"].replace(m["variable"], "x"),
    ),
    Task(
        "decimal_chain_sum",
        {"max_terms": 2, "max_digits": 1, "max_decimal_places": 1},
        lambda m, q: f"decimal {m['expression']}",
    ),
    # New: what there is to learn is slow, and much of it can only be learned by heart.
    Task("count_bits", {"max_n": 4000}, lambda m, q: f"bits {m['number']}"),
    Task("isomorphic_strings", {"max_string_length": 5}, lambda m, q: "alike {} {}".format(*m["words"])),
    Task("binary_alternation", {"min_n": 8, "max_n": 14}, lambda m, q: f"swaps {m['string']}"),
    Task(
        "ransom_note",
        {"max_note_length": 4, "max_magazine_length": 8},
        lambda m, q: f"note {m['ransom_note']} of {m['magazine']}",
    ),
)


class Example(NamedTuple):
    prompt: str
    completion: str


def stream(task: Task, seed: int) -> Iterator[Example]:
    """Short examples of a task, without end."""
    size = 2000
    for start in itertools.count(seed * 10**6, size):  # entry i of a data set is made from its seed + i
        for entry in reasoning_gym.create_dataset(task.name, seed=start, size=size, **task.config):
            made = entry["metadata"]
            answer = task.answer(made, str(entry["answer"]))
            example = Example(task.question(made, str(entry["question"])), f" {answer}")
            if len(example.prompt + example.completion) <= LONGEST:
                yield example


def take(task: Task, seed: int, count: int, *, distinct: bool) -> list[Example]:
    """The next examples; distinct ones have each question once."""
    examples = stream(task, seed)
    if not distinct:
        return [next(examples) for _ in range(count)]
    found: dict[str, Example] = {}
    while len(found) < count:
        example = next(examples)
        found.setdefault(example.prompt, example)
    return list(found.values())


def tokenizer() -> PreTrainedTokenizerFast:
    """One printable ASCII character is one token."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *map(chr, range(32, 127))]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def batches(examples: list[Example], words: PreTrainedTokenizerFast) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches of examples of about one length, without end; only completions are learned."""
    dice = random.Random(20)
    encoded = []
    for prompt, completion in examples:
        before = words(prompt)["input_ids"]
        after = [*words(completion, add_special_tokens=False)["input_ids"], words.eos_token_id]
        encoded.append((before + after, [-100] * len(before) + after))
    while True:
        # Neighbours in length share a batch, so that little is padded; ties fall differently in every round.
        order = sorted(range(len(encoded)), key=lambda number: (len(encoded[number][0]), dice.random()))
        cuts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        dice.shuffle(cuts)
        for cut in cuts:
            longest = max(len(encoded[number][0]) for number in cut)
            ids, labels = torch.zeros(len(cut), longest, dtype=torch.long), torch.full((len(cut), longest), -100)
            for row, number in enumerate(cut):
                length = len(encoded[number][0])
                ids[row, :length], labels[row, :length] = map(torch.tensor, encoded[number])
            yield {"input_ids": ids, "labels": labels}


def pretrain(words: PreTrainedTokenizerFast, steps: int) -> LlamaForCausalLM:
    torch.manual_seed(20)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=128, tie_word_embeddings=True,
            pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    examples = [example for task in PRETRAINING for example in take(task, 1, POOL, distinct=False)]
    print(f"{len(examples)} examples of {len(PRETRAINING)} tasks; {model.num_parameters()} parameters")
    began, recent = time.perf_counter(), list[float]()
    for step, batch in zip(range(1, steps + 1), batches(examples, words), strict=False):
        rate = min(1.0, step / WARMUP) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if step % 500 == 0 or step == steps:
            print(f"step {step}: loss {mean(recent):.3f}, {time.perf_counter() - began:.0f} s", flush=True)
            recent.clear()
    return model


def write_data(folder: Path) -> None:
    """One file per sub-dataset of fine-tuning, its rows distinct questions."""
    write_tasks(folder, FINE_TUNING, SPLITS, 2)


def write_tasks(folder: Path, tasks: Iterable[Task], splits: Mapping[str, int], seed: int) -> None:
    """One file per task, with so many rows of each split; all rows are distinct questions."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        examples = iter(take(task, seed, sum(splits.values()), distinct=True))
        rows = [
            {"split": split, "prompt": prompt, "completion": completion}
            for split, count in splits.items()
            for prompt, completion in (next(examples) for _ in range(count))
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{task.name}.jsonl").write_text(text, encoding="utf-8")


def write_noisy(folder: Path) -> None:
    """Of each sub-dataset in NOISY, a copy in which some training and validation rows have the answer of another row.

    Reads the files that `write_data` wrote. The test rows stay as they are.
    """
    for name in NOISY:
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        dice = random.Random(f"wrong answers of {name}")
        for split in ("train", "validation"):
            part = [row for row in rows if row["split"] == split]
            answers = [row["completion"] for row in part]
            for number in dice.sample(range(len(part)), round(WRONG * len(part))):
                part[number]["completion"] = dice.choice([other for other in answers if other != answers[number]])
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}_noisy.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).with_name("cheap"))
    parser.add_argument("--noisy", action="store_true", help="write only the files with wrong answers")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.noisy:
        write_noisy(folder / "data")
        return
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Two of the tasks draw from sets of letters, whose order Python decides anew for each process.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    write_data(folder / "data")
    write_noisy(folder / "data")
    words = tokenizer()
    model = pretrain(words, STEPS)
    model.save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    print(f"wrote {folder}/model and {folder}/data")


if __name__ == "__main__":
    main()
