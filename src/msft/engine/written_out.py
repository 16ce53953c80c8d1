"""Writes the live model as a plain Hugging Face folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from msft.engine.shards import Shards
from msft.engine.step import Stepper
from msft.model.open import OpenModel, export_model, write_folder
from msft.snapshots.state import trainable

FILE = "5GB"
"""Size of a file of weights at most, as transformers writes them."""


def write_live(
    stepper: Stepper, model: PreTrainedModel | PeftModel, opened: OpenModel, folder: Path, ends: Iterable[int]
) -> None:
    """Writes the model as it is evaluated now; of an adapter, the adapter alone."""
    with stepper.stored(opened.dtype):
        export_model(model, opened.tokenizer, folder, ends)


def write_gathered(shards: Shards, opened: OpenModel, folder: Path, ends: Iterable[int], *, main: bool) -> None:
    """As `write_live`, for a model that is split over processes: tensor by tensor, so that no process ever holds all of
    it. Every process must call it, and the main one writes, under the names that the base's files have."""
    tokenizer, dtype = opened.tokenizer, opened.dtype
    model = shards.model
    if isinstance(model, PeftModel):
        adapter = {name: shards.whole(name).cpu() for name in trainable(model)}
        if main:
            write_folder(model, tokenizer, folder, ends, lambda: model.save_pretrained(str(folder), state_dict=adapter))
        return
    buffers = {n: tensor for n, tensor in model.state_dict().items() if n in dict(model.named_buffers())}
    sizes = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shards.shapes.items()}
    by_stored = {shards.rows.stored(name): name for name in (*sizes, *buffers)}
    plan = split_torch_state_dict_into_shards(
        {stored: (sizes | buffers)[name] for stored, name in by_stored.items()},
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=FILE,
    )
    if main:
        folder.mkdir(parents=True, exist_ok=True)
    for file, in_file in plan.filename_to_tensors.items():
        tensors: dict[str, Tensor] = {}
        for stored in in_file:
            name = by_stored[stored]
            whole = buffers[name] if name in buffers else shards.whole(name).to(dtype)
            if main:
                tensors[stored] = whole.cpu().contiguous()
        if main:
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if not main:
        return
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    write_folder(model, tokenizer, folder, ends, lambda: config.save_pretrained(str(folder)))
