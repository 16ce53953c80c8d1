"""What a machine without network has in place of the hub: models of a thousandth of the size of published ones, and the
data sets of the recipes with a few rows, but with the files, columns and types that they have on the hub.

In the working directory that holds them, `Qwen/Qwen2.5-7B` and `openai/gsm8k` are folders, so that a recipe runs as it
is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Features, List, Value, disable_progress_bars
from published_shapes import SHAPES
from tokenizers_for_tests import tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

WIDTH, DEPTH, TOKENS = 16, 4, 64
"""What a model's widths, its layers and its vocabulary are divided by: 16 * 16 * 4 and 16 * 64 are about a thousand.
Attention has as many heads, each of them narrower."""


def thousandth(folder: Path, name: str) -> Path:
    """A model of the class and the proportions of a published one, with random weights, and a tokenizer."""
    fields = dict(SHAPES[name])
    divided = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "head_dim": WIDTH} | {
        "num_hidden_layers": DEPTH, "vocab_size": TOKENS
    }  # fmt: skip
    fields |= {key: fields[key] // by for key, by in divided.items() if key in fields}
    config = AutoConfig.for_model(
        fields.pop("kind"), **fields, max_position_embeddings=32768, bos_token_id=None, eos_token_id=1, dtype="bfloat16"
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(eos_token_id=[3, 1], pad_token_id=1, max_new_tokens=2048)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Published:
    """A data set of the hub."""

    path: str
    splits: tuple[str, ...]
    row: Mapping[str, Any]
    """One row; the text QQ is another one in each."""
    types: Mapping[str, Any]
    """Of the columns that are not text, lists of text, or a number as Python has it."""
    name: str = "default"
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """What is otherwise in the rows that are not for training, so that a model can only get worse on them."""


ALL = ("train", "validation", "test")
TWO = ("train", "validation")
"""The splits whose answers are public."""
TEXTS = List(Value("string"))
LABELLED = {"choices": {"text": TEXTS, "label": TEXTS}}


def labelled(count: int) -> dict[str, list[str]]:
    return {"text": list("stuvwxyz"[-count:]), "label": list("ABCDEFGH"[:count])}


HUB = {
    "arc_easy": Published(
        "allenai/ai2_arc", ALL, {"id": "i", "question": "QQ", "choices": labelled(4), "answerKey": "C"}, LABELLED,
        name="ARC-Easy", held_out={"answerKey": "A"},
    ),
    "openbookqa": Published(
        "allenai/openbookqa", ALL, {"id": "i", "question_stem": "QQ", "choices": labelled(4), "answerKey": "C"},
        LABELLED, name="main",
    ),
    "sciq": Published(
        "allenai/sciq", ALL,
        {"question": "QQ", "distractor3": "y", "distractor1": "w", "distractor2": "x", "correct_answer": "z",
         "support": "S"}, {},
    ),
    "winogrande": Published(
        "allenai/winogrande", TWO, {"sentence": "QQ", "option1": "w", "option2": "x", "answer": "2"}, {},
        name="winogrande_debiased",
    ),
    "aqua_rat": Published(
        "deepmind/aqua_rat", ALL,
        {"question": "QQ", "options": ["A)1", "B)2", "C)3"], "rationale": "r", "correct": "B"}, {}, name="raw",
    ),
    "boolq": Published("google/boolq", TWO, {"question": "QQ", "answer": True, "passage": "P"}, {}),
    "gsm8k": Published(
        "openai/gsm8k", ("train", "test"), {"question": "QQ", "answer": "so 3\n#### 3"}, {}, name="main",
    ),
    "medmcqa": Published(
        "openlifescienceai/medmcqa", TWO,
        {"id": "i", "question": "QQ", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3, "choice_type": "single",
         "exp": None, "subject_name": "Anatomy", "topic_name": None},
        {"cop": ClassLabel(names=["a", "b", "c", "d"]), "exp": Value("string"), "topic_name": Value("string")},
    ),
    "hellaswag": Published(
        "Rowan/hellaswag", TWO,
        {"ind": 1, "activity_label": "L", "ctx_a": "QQ", "ctx_b": "", "ctx": "QQ", "endings": ["w", "x", "y", "z"],
         "source_id": "s", "split": "train", "split_type": "indomain", "label": "3"}, {"ind": Value("int32")},
    ),
    "commonsense_qa": Published(
        "tau/commonsense_qa", TWO,
        {"id": "i", "question": "QQ", "question_concept": "c", "choices": labelled(5), "answerKey": "C"}, LABELLED,
    ),
    "arc_challenge": Published(
        "allenai/ai2_arc", ALL, {"id": "i", "question": "QQ", "choices": labelled(4), "answerKey": "C"}, LABELLED,
        name="ARC-Challenge",
    ),
    "qasc": Published(
        "allenai/qasc", TWO,
        {"id": "i", "question": "QQ", "choices": labelled(8), "answerKey": "C", "fact1": "f", "fact2": "g",
         "combinedfact": "h", "formatted_question": "QQ"}, LABELLED,
    ),
    "race": Published(
        "ehovy/race", ALL,
        {"example_id": "e", "article": "P", "answer": "B", "question": "QQ", "options": ["w", "x", "y", "z"]}, {},
        name="middle",
    ),
    "sst2": Published(
        "stanfordnlp/sst2", TWO, {"idx": 1, "sentence": "QQ", "label": 1},
        {"idx": Value("int32"), "label": ClassLabel(names=["negative", "positive"])},
    ),
    "ag_news": Published(
        "fancyzhx/ag_news", ("train", "test"), {"text": "QQ", "label": 3},
        {"label": ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])},
    ),
}  # fmt: skip
"""By the names that the recipes have for them. The types are those of the data sets' cards."""
PLAIN = {str: Value("string"), bool: Value("bool"), int: Value("int64"), list: TEXTS}


def publish(folder: Path, names: list[str], rows: Mapping[str, int]) -> dict[str, dict[str, list[str]]]:
    """Writes these data sets below `folder`, with so many rows of each split. Returns the texts that QQ stands for, by
    data set and split."""
    disable_progress_bars()
    told: dict[str, dict[str, list[str]]] = {}
    for name in names:
        data = HUB[name]
        draw = random.Random(name)
        told[name] = {}
        types = {key: data.types.get(key, PLAIN.get(type(value))) for key, value in data.row.items()}
        for split in data.splits:
            texts = [" ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(6)) for _ in range(rows[split])]
            row = dict(data.row) | ({} if split == "train" else data.held_out)
            made = [{k: text if value == "QQ" else value for k, value in row.items()} for text in texts]
            place = folder / data.path / data.name
            place.mkdir(parents=True, exist_ok=True)
            Dataset.from_list(made, Features(types)).to_parquet(place / f"{split}-00000-of-00001.parquet")
            told[name][split] = texts
    for path in {HUB[name].path for name in names}:
        kinds = [HUB[name] for name in names if HUB[name].path == path]
        parts = [
            f"- config_name: {kind.name}\n  data_files:\n"
            + "".join(f"  - split: {split}\n    path: {kind.name}/{split}-*\n" for split in kind.splits)
            for kind in kinds
        ]
        (folder / path / "README.md").write_text(f"---\nconfigs:\n{''.join(parts)}---\n# {path}\n", encoding="utf-8")
    return told
