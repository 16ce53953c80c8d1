"""A model of which each of several processes reads only its own rows: made without weights, then filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key

from msft.core.errors import ModelError, complaint
from msft.model.folder import ModelSource, complaining, safetensors_header, weight_files
from msft.model.open import adapted, origin_of, place_of
from msft.model.returned import return_logits_only

WHOLE = "let each process hold the whole model: training.shard: false"
"""The way out where a model cannot be split over processes."""
_AT_ONCE = 4096
"""Rows of two tensors that are compared at once."""


class Rows:
    """The base model's files, from which some rows of a tensor are read without the others.

    `model`: with a parameter or buffer for each tensor that is wanted, under the names that transformers gives those of
    the files. Raises ModelError where it converts weights as it loads them, which needs all of them, such as experts
    that are merged into one tensor.
    """

    def __init__(self, source: ModelSource, model: PreTrainedModel) -> None:
        self._files: dict[str, Path] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in weight_files(_folder(source)):
            for name, entry in safetensors_header(path)[1].items():
                self._files[name], shapes[name] = path, tuple(entry["shape"])
        known = get_model_conversion_mapping(model)
        converters = [each for each in known if isinstance(each, WeightConverter)]
        renamings: list[Any] = [each for each in known if not isinstance(each, WeightConverter)]
        named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        self._names: dict[str, str] = {}
        for stored in self._files:
            name, converted = rename_source_key(stored, renamings, converters, model.base_model_prefix, named)
            if converted is not None:
                raise _unreadable(source, f"transformers converts {stored} as it loads it")
            self._names[name] = stored
        aliases: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            aliases.setdefault(id(parameter), []).append(name)
        for name, parameter in model.named_parameters():
            found = [alias for alias in aliases[id(parameter)] if alias in self._names]
            if not found or shapes[self._names[found[0]]] != tuple(parameter.shape):
                raise _unreadable(source, f"its files have no tensor {name} of the shape {list(parameter.shape)}")
            if other := next((alias for alias in found[1:] if not self._same(found[0], alias, len(parameter))), None):
                why = f"config.json ties {found[0]} and {other}, but the files hold two different tensors"
                raise _unreadable(source, f"{why}; with tie_word_embeddings: false there, both are trained")
            self._names[name] = self._names[found[0]]

    def _same(self, one: str, other: str, rows: int) -> bool:
        parts = ((first, min(first + _AT_ONCE, rows)) for first in range(0, rows, _AT_ONCE))
        return all(torch.equal(*(self.read(name, *part, torch.float32) for name in (one, other))) for part in parts)

    def stored(self, name: str) -> str:
        """The name that the files have for a parameter or buffer, or its own."""
        return self._names.get(name, name)

    def has(self, name: str) -> bool:
        """Whether the files have a tensor for this parameter or buffer."""
        return name in self._names

    def read(self, name: str, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """[last - first, ...] rows of a tensor, in `dtype`, on the CPU."""
        stored = self._names[name]
        with safe_open(self._files[stored], framework="pt") as file:
            found: Tensor = file.get_slice(stored)[first:last]
            return found.to(dtype)

    def whole(self, name: str, dtype: torch.dtype) -> Tensor:
        """All of a tensor; for buffers, which are small."""
        with safe_open(self._files[self._names[name]], framework="pt") as file:
            found: Tensor = file.get_tensor(self._names[name])
            return found.to(dtype)


def hollow(source: ModelSource) -> tuple[PreTrainedModel | PeftModel, dict[str, str], Rows]:
    """The model with the base's parameters on the meta device and the adapter's, if there is one, on the CPU; for
    each of the base's, its name there to that in the base; and the files to read them from.

    Raises ModelError for weights that are not safetensors under the model's own names, and for an adapter whose first
    values depend on the base's.
    """
    if source.gguf_file is not None:
        raise _unreadable(source, "GGUF files are not read in parts")
    _check_adapter(source)
    with complaining(source, "the model cannot be made"), init_empty_weights(include_buffers=False):
        config = AutoConfig.from_pretrained(place_of(source), **origin_of(source))
        base: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=source.trust_remote_code, dtype=torch.float32
        )
    return_logits_only(base)
    base.tie_weights()
    rows = Rows(source, base)
    for name, buffer in base.named_buffers():
        if rows.has(name):
            buffer.copy_(rows.whole(name, buffer.dtype))
    of_base = {id(parameter): name for name, parameter in base.named_parameters()}
    if source.peft is None:
        return base, {name: name for name in of_base.values()}, rows
    # PEFT draws an adapter beside the weights that it is for: they stand there as zeros without memory meanwhile.
    meta = _exchanged(base, lambda parameter: torch.zeros((), dtype=parameter.dtype).expand(parameter.shape))
    made = adapted(base, source, source.peft)
    back = {id(zeros): parameter for parameter, zeros in meta}
    for module, name, parameter in _held(made):
        if id(parameter) in back:
            back[id(parameter)].requires_grad = False
            module._parameters[name] = back[id(parameter)]
    return made, {name: of_base[id(p)] for name, p in made.named_parameters() if id(p) in of_base}, rows


def _exchanged(model: nn.Module, other: Any) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Replaces each parameter, a tied one by one, and returns (what was there, what is)."""
    made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for module, name, parameter in _held(model):
        if id(parameter) not in made:
            made[id(parameter)] = parameter, nn.Parameter(other(parameter), requires_grad=parameter.requires_grad)
        module._parameters[name] = made[id(parameter)][1]
    return list(made.values())


def _held(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in list(model.modules()):
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                yield module, name, parameter


def _folder(source: ModelSource) -> Path:
    if source.folder is not None:
        return source.folder
    with complaining(source, "the model cannot be found"):
        wanted = ["*.safetensors", "*.safetensors.index.json"]
        return Path(snapshot_download(source.name_or_path, revision=source.revision, allow_patterns=wanted))


def _check_adapter(source: ModelSource) -> None:
    """Raises ModelError for an adapter whose first values are computed from the base's weights."""
    asked: Mapping[str, Any] = source.peft or {}
    for name, plain in (("use_dora", (None, False)), ("init_lora_weights", (None, True)), ("modules_to_save", (None,))):
        if (value := asked.get(name)) not in plain:
            found = f"{name}: {value} needs the base model's weights, of which each process has a part"
            raise ModelError(complaint(found, f"leave it out, or {WHOLE}", field=f"peft.{name}"))


def _unreadable(source: ModelSource, why: str) -> ModelError:
    found = f"{source.name_or_path} cannot be split over processes: {why}"
    return ModelError(complaint(found, WHOLE, field="model.name_or_path"))
