"""Model and token sequences of a work, the same for every contender; random ones where neither can be brought along.

Speed depends on shapes, not on what weights and tokens are: a machine without network needs no files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Work, rows_by_task, rows_of

from msft.core.vocabulary import Mixture
from msft.data.encode import Encoder, cut
from msft.data.examples import Example
from msft.data.formats import Sample
from msft.data.order import Cursor, Order
from msft.data.rows import Row
from msft.model.folder import ModelSource
from msft.model.open import load_tokenizer

TASK = "rows"
SYNTHETIC = "synthetic"
RANDOM = "random:"
WORDS = 4096
CONFIGS: dict[str, dict[str, Any]] = {
    "1m": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 4096},
    "5m": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "vocab_size": 4096},
    "15m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 4096},
    "50m": {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 10, "vocab_size": 4096},
    "smollm2-135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    },
    "llama-1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128256,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
}  # fmt: skip
"""Shapes of Llama models with tied embeddings; heads of 64 where nothing else is said."""


def source_of(work: Work, folder: Path) -> ModelSource:
    """The model; a random one is written into `folder` first, if it is not there."""
    if not work.model.startswith(RANDOM):
        return ModelSource(name_or_path=work.model)
    place = folder / "model"
    if not place.exists():
        draft = folder / "model.draft"  # a folder called model is a whole one
        random_model(work.model.removeprefix(RANDOM), draft, work.seed, work.device)
        draft.rename(place)
    return ModelSource(name_or_path=str(place))


def examples_of(work: Work, source: ModelSource) -> list[Example]:
    """The training examples, one for each of the work's rows, in no order that matters."""
    if work.data == SYNTHETIC:
        return synthetic(work.examples, work.seed)
    found = encoded(work, source, rows_of(work))
    if len(found) < work.examples:
        raise SystemExit(f"{work.examples - len(found)} examples do not fit into --max-length {work.max_length}")
    return found


def encoded(work: Work, source: ModelSource, rows: list[dict[str, Any]]) -> list[Example]:
    """Rows as tokens, the end-of-sequence token learned; those of which no learned token fits are left out."""
    samples = [
        Sample(row=Row(row, work.data, None, number), prompt=row["prompt"], completion=row["completion"])
        for number, row in enumerate(rows, 1)
    ]
    whole = Encoder(load_tokenizer(source)).whole(samples)
    return [example for one in whole if (example := cut(one, work.max_length)) is not None]


def validation_of(work: Work, source: ModelSource, items: int) -> list[Example]:
    """The first `items` validation rows of each file; of synthetic rows, as many."""
    if work.data == SYNTHETIC:
        return synthetic(items, work.seed + 1)
    rows = [row for rows in rows_by_task(work, "validation").values() for row in rows[:items]]
    return encoded(work, source, rows)


def batches_of(work: Work, examples: list[Example]) -> list[list[Example]]:
    """The global batches, in the order in which the engine trains on them."""
    order, cursor = Order(work.seed, {TASK: len(examples)}, work.batch_size), Cursor()
    batches = []
    for _ in range(work.steps):
        batch, cursor = order.batch(1, Mixture(tasks=(TASK,)), cursor)
        batches.append([examples[index] for _, index in batch])
    return batches


def told_every(work: Work) -> int:
    """Steps between two losses that are read: reading one makes a GPU wait."""
    return 1 if work.device == "cpu" else max(1, work.warm)


def synthetic(count: int, seed: int) -> list[Example]:
    """Random tokens with the lengths of short-answer tasks: 76 tokens in the mean, 14 % of them learned."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        given = int(np.clip(draw.lognormal(4.05, 0.5), 8, 400))
        learned = int(np.clip(draw.lognormal(3.8, 0.6), 4, 300)) if draw.random() < 1 / 6 else 2
        ids = draw.integers(3, WORDS, given + learned).astype(np.int32)
        made.append(Example(ids=ids, trained=np.arange(given + learned) >= given))
    return made


def random_model(name: str, place: Path, seed: int, device: str = "cpu") -> None:
    """Writes a model of these shapes, drawn on the device, and a tokenizer of the words w3, w4, ..., w4095."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if name not in CONFIGS:
        raise SystemExit(f"random:{name}: the shapes there are: {', '.join(CONFIGS)}")
    heads = CONFIGS[name]["hidden_size"] // 64
    shape = {"num_attention_heads": heads, "num_key_value_heads": heads} | CONFIGS[name]
    torch.manual_seed(seed)
    config = LlamaConfig(
        **shape, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    with torch.device(device):
        model = LlamaForCausalLM(config)
    model.save_pretrained(place)
    known = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, WORDS)}
    words = Tokenizer(WordLevel(known, unk_token="</s>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast
    tokenizer(tokenizer_object=words, eos_token="</s>", pad_token="<pad>").save_pretrained(place)
