"""TRL's `SFTTrainer` at the same work: its legal settings, the seconds and the loss of every optimizer step.

The same global batches:
- padded: micro-batches of so many rows as they come, padded;
- rebalanced: `train_sampling_strategy: batch_rebalance`, which sorts each global batch and cuts it into micro-batches
  of equal cost, of so many rows on average;
- padding_free: the rows of a micro-batch in one row, attention within each (TRL asks for FlashAttention for it; with
  SDPA a mask does the same).

A name may be followed by what it runs with:
- +varlen: attention over cumulative lengths (varlen_attention.py), as FlashAttention has it; for padding_free, packed;
- +liger: TRL's `use_liger_kernel`, fused norms, gates and rotation.

Other global batches, of the same rows:
- grouped: `group_by_length`, rows of like length from many batches make a batch;
- packed: `packing`, best-fit decreasing, to rows of `packed_length` tokens, as many of them a step as hold the tokens
  of a global batch.

All of them: fp32 weights, bf16 autocast, fused AdamW without decay or clipping, a constant learning rate, no gradient
checkpointing (TRL's default would cost a forward pass), loss over the completion's tokens, normalised over the global
batch. They get the token sequences, so that tokenising differs in nothing. On a GPU, losses are logged every
few steps (prepared.told_every).
"""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import varlen_attention
from common import Contender, Work, peak_memory
from datasets import Dataset, disable_progress_bars
from prepared import told_every
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from msft.data.examples import Example
from msft.model.folder import ModelSource
from msft.model.open import load_model, load_tokenizer

NAMES = ("padded", "rebalanced", "padding_free", "grouped", "packed")
EXTRAS = {"varlen", "liger"}
REBALANCE_SEED = 42
"""With it transformers' BatchRebalanceSampler shuffles, and the Trainer offers no way to say otherwise."""


def train(
    work: Work, contender: Contender, source: ModelSource, batches: Sequence[Sequence[Example]], folder: Path
) -> dict[str, Any]:
    """Seconds, losses and real tokens of each step."""
    kind = contender.name.partition("+")[0]
    if kind != "packed" and work.batch_size % contender.micro:
        raise SystemExit(f"{contender.label}: its rows do not divide a batch of {work.batch_size} examples")
    rows = [example for batch in batches for example in batch]
    if kind == "rebalanced":
        rows = _undone(rows)
    clock = _Clock(work)
    trainer = _trainer(work, contender, source, rows, folder, [clock])
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    totals = [0, *(int(entry["num_tokens"]) for entry in steps)]
    return {
        "seconds": clock.seconds,
        "losses": [float(entry["loss"]) for entry in steps],
        "tokens": [after - before for before, after in itertools.pairwise(totals)],
        "peak_steps": clock.peak,
    }


class Evaluation:
    """`SFTTrainer.evaluate`; `rows`: what the trainer would train on, which it will not be made without."""

    def __init__(
        self, work: Work, contender: Contender, source: ModelSource, rows: Sequence[Example], folder: Path
    ) -> None:
        self.trainer = _trainer(work, contender, source, rows, folder, [])

    def __call__(self, items: Sequence[Example]) -> float:
        """The loss that it gives for these items, preparing them included."""
        return float(self.trainer.evaluate(_dataset(items))["eval_loss"])


def _trainer(
    work: Work,
    contender: Contender,
    source: ModelSource,
    rows: Sequence[Example],
    folder: Path,
    callbacks: list[TrainerCallback],
) -> SFTTrainer:
    warnings.filterwarnings("ignore")
    logging.getLogger("trl").setLevel(logging.ERROR)
    disable_progress_bars()
    name, *extras = contender.name.split("+")
    if name not in NAMES or not set(extras) <= EXTRAS:
        raise SystemExit(f"{contender.label}: the names are {', '.join(NAMES)}, with +{' and +'.join(sorted(EXTRAS))}")
    packed = name == "packed"
    tokens = sum(map(len, rows)) / len(rows) * work.batch_size
    per_step = tokens / contender.packed_length if packed else work.batch_size
    strategies = {"rebalanced": "batch_rebalance", "grouped": "group_by_length", "packed": "random"}
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=work.steps,
        per_device_train_batch_size=contender.micro,
        per_device_eval_batch_size=contender.micro,
        gradient_accumulation_steps=max(1, round(per_step / contender.micro)),
        train_sampling_strategy=strategies.get(name, "sequential"),
        packing=packed,
        eval_packing=False,
        padding_free=name == "padding_free",
        use_liger_kernel="liger" in extras,
        max_length=contender.packed_length if packed else None,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        max_grad_norm=0.0,
        bf16=work.bf16,
        gradient_checkpointing=False,
        use_cpu=work.device == "cpu",
        dataloader_pin_memory=work.device == "cuda",
        logging_steps=told_every(work),
        save_strategy="steps" if work.keep else "no",
        save_steps=work.steps,
        report_to="none",
        disable_tqdm=True,
        seed=work.seed,
    )
    model = load_model(source)
    if "varlen" in extras:
        varlen_attention.use(model)
    return SFTTrainer(
        model,
        args=config,
        train_dataset=_dataset(rows),
        processing_class=load_tokenizer(source),
        callbacks=callbacks,
    )


def _dataset(examples: Sequence[Example]) -> Dataset:
    """Tokens, with labels where a token is learned."""
    return Dataset.from_dict(
        {
            "input_ids": [example.ids.tolist() for example in examples],
            "labels": [
                [
                    token if learned else -100
                    for token, learned in zip(example.ids.tolist(), example.trained, strict=True)
                ]
                for example in examples
            ],
        }
    )


def _undone(rows: Sequence[Example]) -> list[Example]:
    """The rows in an order that the sampler's shuffling turns into the one given."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(REBALANCE_SEED)).tolist()
    placed: list[Example] = list(rows)
    for row, place in zip(rows, order, strict=True):
        placed[place] = row
    return placed


class _Clock(TrainerCallback):
    """The seconds of each step: from the end of the one before it, so that loading data counts.

    On a GPU only their sum is exact, over the steps after the warm ones: the device is waited for before and after.
    """

    def __init__(self, work: Work) -> None:
        self.waits = (work.warm, work.steps) if work.device == "cuda" else ()
        self.seconds: list[float] = []
        self.peak = 0
        self._last = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if len(self.seconds) + 1 in self.waits:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last, self.peak = now, peak_memory()
