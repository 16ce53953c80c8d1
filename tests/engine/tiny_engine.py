"""Tiny models and data sets for tests of the engine: everything is made on the spot, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from msft.core.vocabulary import ROOT, Mixture, Segment, Task
from msft.data.examples import Example, Item, Measure, TaskData
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.engine.torch_engine import TorchEngine
from msft.model.adapters import write_merged
from msft.model.folder import ModelSource
from msft.model.open import OpenModel, end_tokens, export_model, load_model
from msft.model.saved_adapter import with_adapter
from msft.snapshots.shared_store import SharedStore
from msft.snapshots.store import Store

VOCABULARY = 48
TASKS = ("one", "three", "two")


def tiny_model(kind: str = "llama", *, dropout: float = 0.0, tied: bool = True) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model: PreTrainedModel
        if kind == "gpt2":
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64,
                    bos_token_id=0, eos_token_id=0, embd_pdrop=dropout, attn_pdrop=dropout, resid_pdrop=dropout,
                )
            )  # fmt: skip
        elif kind == "gemma2":
            model = Gemma2ForCausalLM(
                Gemma2Config(
                    vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, head_dim=8,
                    num_attention_heads=2, num_key_value_heads=1, final_logit_softcapping=0.5,
                    max_position_embeddings=64,
                )
            )  # fmt: skip
        elif kind == "gemma3":  # with its part for images
            model = Gemma3ForConditionalGeneration(
                Gemma3Config(
                    text_config={
                        "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
                        "max_position_embeddings": 64,
                    },
                    vision_config={
                        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                        "image_size": 28, "patch_size": 14,
                    },
                    image_token_index=3, boi_token_index=4, eoi_token_index=5, mm_tokens_per_image=1,
                    bos_token_id=0, eos_token_id=0,
                )
            )  # fmt: skip
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32,
                    num_hidden_layers=30 if kind == "deep" else 2,
                    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
                    bos_token_id=0, eos_token_id=0,
                )
            )  # fmt: skip
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
        if kind == "deep":  # as where a model pads with token 0
            torch.nn.init.zeros_(model.get_input_embeddings().weight[0])
    return model


def tiny_folder(folder: Path, kind: str = "llama", *, dropout: float = 0.0, tied: bool = True) -> Path:
    tiny_model(kind, dropout=dropout, tied=tied).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0").save_pretrained(folder)
    return folder


def tiny_example(random: np.random.Generator, longest: int = 14) -> Example:
    length = int(random.integers(3, longest))
    trained = random.random(length) < 0.5
    trained[0], trained[-1] = False, True
    return Example(ids=random.integers(1, VOCABULARY, length).astype(np.int32), trained=trained)


def tiny_data(sizes: tuple[int, ...] = (11, 8, 13)) -> dict[Task, TaskData]:
    random = np.random.default_rng(3)
    measures = (Measure(name="choice"), Measure(name="exact_match"), Measure(name="loss"))
    data = {}
    for task, size, measure in zip(TASKS, sizes, measures, strict=False):
        options = 3 if measure.name == "choice" else 1
        items = [
            [Item(options=tuple(tiny_example(random) for _ in range(options)), answer=options - 1) for _ in range(5)]
            for _ in range(2)
        ]
        train = [tiny_example(random) for _ in range(size)]
        data[task] = TaskData(
            task=task, train=train, validation=items[0], test=items[1], measure=measure, fingerprint=task
        )
    return data


def tiny_engine(
    folder: Path,
    snapshots: Path,
    *,
    peft: dict[str, Any] | None = None,
    quantize: Any = None,
    memory_bytes: int = 10**9,
    gpu_bytes: int = 0,
    on_step: Callable[[Any], None] | None = None,
    data: dict[Task, TaskData] | None = None,
    **settings: Any,
) -> tuple[TorchEngine, Store]:
    chosen: dict[str, Any] = {
        "seed": 5, "batch_size": 6, "horizon": 10.0, "learning_rate": 1e-2, "precision": "fp32",
        "max_tokens_per_microbatch": 40, "lookahead_batch": 4, "durable": "rollout",
    } | settings  # fmt: skip
    processes = Processes()
    store = Store(snapshots, memory_bytes=memory_bytes, gpu_bytes=gpu_bytes)
    if processes.sharding(chosen.get("shard", "auto")):
        store = SharedStore(snapshots, together=processes, memory_bytes=memory_bytes, gpu_bytes=gpu_bytes)
    source = ModelSource(name_or_path=str(folder), peft=peft, quantize=quantize, seed=chosen["seed"])
    opened, parts = OpenModel.open(source), data or tiny_data()
    return TorchEngine(opened, parts, EngineSettings(**chosen), store, on_step=on_step), store


def export_merged(engine: TorchEngine, snapshot: int, folder: Path) -> None:
    """Writes a snapshot's adapter and merges it into its base, as `msft export --merge` does."""
    opened, adapter = engine._opened, folder.with_name(f"{folder.name} adapter")
    engine.export(snapshot, adapter)
    base = load_model(replace(opened.source, peft=None), whole=True)
    ends = end_tokens(adapter)
    write_merged(
        with_adapter(base, adapter), folder, lambda merged, to: export_model(merged, opened.tokenizer, to, ends)
    )


def segment(start: int, stop: int, *, parent: int = ROOT, **fields: Any) -> Segment:
    chosen: dict[str, Any] = {
        "parent": parent, "rollout": 1, "mixture": Mixture(tasks=TASKS), "start": start, "stop": stop,
        "epoch": start / 6, "score": TASKS,
    } | fields  # fmt: skip
    return Segment(**chosen)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, wherever they lie."""
    return first.keys() == second.keys() and all(torch.equal(first[name].cpu(), second[name].cpu()) for name in first)
