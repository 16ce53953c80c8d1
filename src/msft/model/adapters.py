"""Adapters (PEFT): made from the configuration, and merged into their base for hand-over."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from msft.core.errors import ModelError, complaint
from msft.model.model_parts import vocabulary_of

_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
"""Where PEFT finds the number of the layer in a module's name."""
_TRIAL = 32
"""Tokens whose likelihoods a merged model is held against."""
_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Mean difference of a token's likelihood that the rounding of merged weights may make."""


def fresh_adapter(model: PreTrainedModel, arguments: dict[str, Any], seed: int) -> PeftModel:
    """The model with a new adapter, whose initial weights depend on `seed` alone.

    `arguments`: of peft.LoraConfig. Raises ModelError for others, for names that no module has, and for an adapter on a
    weight that two layers share.
    """
    if arguments.get("layers_to_transform") is not None and arguments.get("target_modules") == "all-linear":
        arguments = arguments | {"target_modules": _linear_layers(model)}  # PEFT takes layers of named modules only
    _check_names(model, arguments)
    drawn = int.from_bytes(hashlib.sha256(f"adapter {seed}".encode()).digest()[:8], "little")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(drawn)
            made = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **arguments))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        fix = "name layers that an adapter fits in peft.target_modules, such as [q_proj, v_proj]"
        raise ModelError(complaint(f"the adapter cannot be made ({error})", fix, field="peft")) from error
    _check_shared(made)
    return made


def _check_names(model: PreTrainedModel, arguments: dict[str, Any]) -> None:
    """Raises ModelError for entries of `arguments` that match nothing: PEFT passes over them if another one matches."""
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    lines = []
    for key, matches in (("target_modules", _is), ("exclude_modules", _is), ("modules_to_save", str.endswith)):
        given = arguments.get(key)
        for entry in given if isinstance(given, list | tuple | set) else ():
            if not any(matches(name, entry) for name in names):
                found = f"found {entry!r}, but no module of {type(model).__name__} has this name"
                lines.append(complaint(found, _names_like(entry, model), field=f"peft.{key}"))
    targets = arguments.get("target_modules")
    if not lines and isinstance(targets, list | tuple | set):
        adapted = (name for name in names if any(_is(name, entry) for entry in targets))
        there = {int(layer[1]) for name in adapted if (layer := _LAYER.match(name))}
        for number in arguments.get("layers_to_transform") or ():
            if number not in there:
                found = f"found {number}, but no module of target_modules is in a layer of this number"
                fix = f"give numbers from {min(there)} to {max(there)}" if there else "leave it out"
                lines.append(complaint(found, fix, field="peft.layers_to_transform"))
    if lines:
        raise ModelError("\n".join(lines))


def _is(name: str, entry: str) -> bool:
    return name == entry or name.endswith(f".{entry}")


def _names_like(entry: str, model: nn.Module) -> str:
    """What to write in place of a name that no module has."""
    weights = (name.rpartition(".")[0] for name, _ in model.named_parameters(remove_duplicate=False))
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in weights))
    near = difflib.get_close_matches(entry.rpartition(".")[2], known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"name some of: {', '.join(known[:20])}"


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """The names that `all-linear` stands for: of all linear layers but the output head."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    return sorted(found)


def _check_shared(model: PeftModel) -> None:
    """Raises ModelError where the adapter changes a layer whose weight another layer shares: merged, it would change
    both (tied embeddings)."""
    owners: dict[int, set[str]] = {}
    adapted: dict[int, tuple[str, str]] = {}
    for name, parameter in model.get_base_model().named_parameters(remove_duplicate=False):
        layer, _, _ = name.rpartition(".")
        plain = layer.removesuffix(".base_layer").removesuffix(".original_module")
        owners.setdefault(id(parameter), set()).add(plain)
        if plain != layer:
            copied = layer.endswith(".original_module")
            adapted[id(parameter)] = (plain, "modules_to_save" if copied else "target_modules")
    for weight, (layer, key) in adapted.items():
        if others := owners[weight] - {layer}:
            found = f"the adapter changes {layer}, whose weight {sorted(others)[0]} shares: merging would change both"
            short = layer.rpartition(".")[2]
            fix = f"leave {short} out of peft.{key}, or untie the model's embeddings"
            raise ModelError(complaint(found, fix, field="peft"))


def write_merged(
    model: PeftModel,
    folder: Path,
    write: Callable[[Any, Path], None],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Merges the adapter into its base, which spends `model`, writes it by `write(merged, folder)`, and reads it again.

    Raises ModelError where the folder's model gives other likelihoods
    than the adapter on its base.
    """
    kind: Any = type(model.get_base_model())
    expected, device = _likelihoods(model), next(model.parameters()).device
    merged: Any = model.merge_and_unload(safe_merge=True)
    write(merged.to(dtype), folder)
    del merged
    # In fp32, whatever the file holds: only the rounding of the weights may show.
    loaded = kind.from_pretrained(str(folder), dtype=torch.float32).to(device)
    difference = float((_likelihoods(loaded) - expected).abs().mean())
    if not difference <= _NATS[dtype]:
        found = f"merged, the model's likelihoods differ by {difference:.2g} nats a token from those of the adapter"
        fix = "hand over the adapter itself, without merging, and report this with the model's name and peft's keys"
        raise ModelError(complaint(found, fix, file=folder))


@torch.no_grad()
def _likelihoods(model: Any) -> Tensor:
    """[_TRIAL - 1] the log-probability of each of some made-up tokens."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    vocabulary = vocabulary_of(model)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, _TRIAL)).to(device)[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    model.train(training)
    found: Tensor = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].cpu()
    return found
