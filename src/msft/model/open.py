"""Loads models and tokenizers: in fp32, from safetensors or GGUF, with an adapter if configured; under an adapter,
linear layers in 4 or 8 bits if configured or stored so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from msft.core.errors import ModelError, complaint
from msft.core.plain_words import many
from msft.model.adapters import fresh_adapter
from msft.model.folder import (
    ModelSource,
    Quantized,
    check_model_folder,
    check_no_hub_adapter,
    check_shapes,
    complaining,
)
from msft.model.model_parts import base_of
from msft.model.quantised import (
    as_stored,
    check_trained,
    check_unpacked,
    kept_whole,
    kind_of,
    prepare,
    require,
    settings,
    stored_as,
    unpacked,
)
from msft.model.returned import as_configured, return_logits_only


@dataclass(frozen=True)
class OpenModel:
    """A model that was found and checked once, for all that need its source, tokenizer or skeleton.

    No weight is loaded before `load`.
    """

    source: ModelSource
    tokenizer: Any
    """With the chat template used in training."""
    skeleton: PreTrainedModel | PeftModel
    """The model without its weights, on the meta device."""

    @classmethod
    def open(cls, source: ModelSource) -> OpenModel:
        """Finds and checks a model. Raises ModelError where it cannot be used. Whether it has an embedding for every
        token is known with the data (`check_data_fits`): a tokenizer may name tokens that no text has (Gemma 3)."""
        check_model_folder(source)
        tokenizer = _tokenizer(source)
        return cls(source, tokenizer, _skeleton(source))

    def of(self, source: ModelSource) -> OpenModel:
        """The same model and tokenizer, for a source that differs only in the adapter's seed, in `quantize`, or in the
        model's name or path."""
        return replace(self, source=source)

    @property
    def dtype(self) -> torch.dtype:
        """In which the base's weights are stored, according to its configuration; of an adapter, and where it does not
        say, fp32."""
        stored = getattr(self.skeleton.config, "dtype", None)
        if isinstance(self.skeleton, PeftModel) or self.source.gguf_file or not isinstance(stored, torch.dtype):
            return torch.float32
        return stored

    @property
    def quantized(self) -> Quantized | None:
        """In which numbers the base's linear layers are held; None: as floating-point numbers."""
        return kind_of(self.source, getattr(self.skeleton, "config", None))

    def load(self, *, told: Callable[[str], None] | None = None) -> PreTrainedModel | PeftModel:
        """See `load_model`. `told`: is called with what people should know of the files."""
        model = _weights(self.source, told=told)
        check_unpacked(self.source, model, self.skeleton)
        return model


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer, with the chat template used in training. Raises ModelError."""
    if source.tokenizer is None:
        check_model_folder(source)
    return _tokenizer(source)


def _tokenizer(source: ModelSource) -> Any:
    place = source if source.tokenizer is None else ModelSource(name_or_path=source.tokenizer)
    with complaining(place, "the tokenizer cannot be loaded"):
        tokenizer: Any = AutoTokenizer.from_pretrained(place_of(place), **origin_of(place))
    if source.chat_template is not None:
        tokenizer.chat_template = source.chat_template
    return tokenizer


def _skeleton(source: ModelSource) -> PreTrainedModel | PeftModel:
    """The model on the meta device, made in seconds whatever its size.

    Raises ModelError where configuration and weights (according to their headers) do not fit together.
    """
    with complaining(source, "the model's configuration cannot be used"), torch.device("meta"):
        config = AutoConfig.from_pretrained(place_of(source), **origin_of(source))
        check_trained(source, kind_of(source, config))
        model = _empty(source, config)
        if source.peft is None and stored_as(config) is not None:
            check_unpacked(source, as_stored(deepcopy(config), _empty(source, config)), model)
    return_logits_only(model)
    check_shapes(source, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    if source.peft is None:
        return model
    with torch.device("meta"):
        return adapted(model, source, source.peft)


def _empty(source: ModelSource, config: Any) -> PreTrainedModel:
    with torch.device("meta"):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=source.trust_remote_code
        )
    return made


def load_model(source: ModelSource, *, whole: bool = False) -> PreTrainedModel | PeftModel:
    """The model on the CPU, in fp32, with a fresh adapter where `source.peft` asks for one. Raises ModelError.

    Linear layers that are held in 4 or 8 bits compute in fp32 too; with `whole` there are none: the base is read as it
    is stored, and what is stored in so few bits is unpacked.
    """
    check_model_folder(source)
    return _weights(source, whole=whole)


def _weights(
    source: ModelSource, *, whole: bool = False, told: Callable[[str], None] | None = None
) -> PreTrainedModel | PeftModel:
    if whole:
        source = replace(source, quantize=None)
    check_no_hub_adapter(source)
    keywords = origin_of(source)
    if source.gguf_file is None:
        keywords["use_safetensors"] = True
    else:
        keywords["quantization_config"] = GgufConfig(dequantize=True)
    quantised = _quantised(source)
    with complaining(source, "the model cannot be loaded"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place_of(source), dtype=torch.float32, output_loading_info=True, **keywords, **(quantised or {})
        )
    model, loading = loaded
    if loading["missing_keys"]:
        found = (
            f"the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}, which would be initialised at random"
        )
        raise ModelError(complaint(found, "give a complete causal language model", file=source.name_or_path))
    return_logits_only(model)
    for note in _as_in_the_files(model, loading["unexpected_keys"]):
        if told is not None:
            told(note)
    if source.gguf_file is not None:
        _forget_quantisation(model)
    if quantised is not None:
        model = unpacked(model) if whole else prepare(model)
    return model if source.peft is None else adapted(model, source, source.peft)


def _as_in_the_files(model: PreTrainedModel, unused: Iterable[str]) -> list[str]:
    """Makes the model's configuration say what its files hold; returns what people should know of these. `unused`:
    tensors that it has no place for."""
    notes = []
    if model.get_expanded_tied_weights_keys(all_submodels=True) and not model.all_tied_weights_keys:
        model.config.tie_word_embeddings = False  # or others would tie what is handed over
        notes.append(
            "config.json ties the model's head to its embeddings, but the files hold another head: both are used"
        )
    if names := sorted(unused):
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        notes.append(
            f"the model's files hold {many(len(names), 'tensor')} without a place in its config.json: {listed}"
        )
    return notes


def adapted(model: PreTrainedModel, source: ModelSource, arguments: dict[str, Any]) -> PeftModel:
    """The model with a fresh adapter, which names its base and, of a name on the hub, the commit."""
    made = fresh_adapter(model, arguments, source.seed)
    named = made.peft_config["default"]
    named.base_model_name_or_path, named.revision = source.base, source.base_revision
    return made


def _quantised(source: ModelSource) -> dict[str, Any] | None:
    """What transformers is told for a model whose linear layers are to be held, or are stored, in 4 or 8 bits; None:
    they are neither."""
    if source.gguf_file is not None:
        kind_of(source, None)
        return None
    with complaining(source, "the model cannot be loaded"):
        config = AutoConfig.from_pretrained(place_of(source), **origin_of(source))
    if (kind := kind_of(source, config)) is None:
        return None
    require("model.quantize", kind)
    on_cpu: dict[str, Any] = {"device_map": {"": "cpu"}}
    if source.quantize is None or stored_as(config) is not None:
        return on_cpu
    whole = kept_whole(_empty(source, config), (source.peft or {}).get("modules_to_save"))
    return {**on_cpu, "quantization_config": settings(source.quantize, whole)}


def export_model(model: PreTrainedModel | PeftModel, tokenizer: Any, folder: Path, ends: Iterable[int] = ()) -> None:
    """Writes a plain Hugging Face folder: safetensors, configuration, generation settings, tokenizer.

    For a LoRA run, the adapter only. `ends`: the tokens with which training taught the model to end.
    """
    write_folder(model, tokenizer, folder, ends, lambda: model.save_pretrained(str(folder)))


def write_folder(
    model: PreTrainedModel | PeftModel, tokenizer: Any, folder: Path, ends: Iterable[int], save: Callable[[], None]
) -> None:
    """As `export_model`, with `save` to write weights and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    with _without_generation_settings(model) as settings:
        save()
    as_configured(base_of(model), folder)
    tokenizer.save_pretrained(folder)
    _write_generation_settings(settings, tokenizer, folder, ends)


@contextmanager
def _without_generation_settings(model: Any) -> Iterator[dict[str, Any]]:
    """The model's generation settings; in this context it has none, because transformers refuses to save settings that
    it finds invalid, and some published ones are."""
    base = base_of(model)
    kept = base.generation_config
    base.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield {} if kept is None else json.loads(kept.to_json_string(use_diff=True))
    finally:
        base.generation_config = kept


def _write_generation_settings(settings: dict[str, Any], tokenizer: Any, folder: Path, ends: Iterable[int]) -> None:
    """Writes the base model's settings with the tokenizer's end-of-sequence token, as `Trainer` does, and `ends`."""
    known = [end for end in _listed(settings.get("eos_token_id")) if end is not None]
    first = [end for end in (tokenizer.eos_token_id,) if end is not None and end not in known]
    others = sorted({int(end) for end in ends} - {*first, *known})
    if first or others:
        settings["eos_token_id"] = [*first, *known, *others]
    file = folder / GENERATION_CONFIG_NAME
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def end_tokens(folder: Path) -> list[int]:
    """The end tokens in the generation settings of a model's folder; none where it has no such settings."""
    file = folder / GENERATION_CONFIG_NAME
    if not file.is_file():
        return []
    known = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    return [int(end) for end in _listed(known) if end is not None]


def _listed(ends: Any) -> list[Any]:
    return ends if isinstance(ends, list) else [ends]


def non_embedding_parameters(model: PreTrainedModel | PeftModel) -> int:
    """P of the cost law: parameters outside embeddings and, where it is not tied to one, the output head (Kaplan)."""
    ends = of_ends(model)
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in ends)


def of_ends(model: Any) -> set[int]:
    """The ids of the parameters of embeddings and output head."""
    ends = [model.get_output_embeddings(), *(module for module in model.modules() if isinstance(module, nn.Embedding))]
    return {id(parameter) for end in ends if isinstance(end, nn.Module) for parameter in end.parameters()}


def _forget_quantisation(model: Any) -> None:
    """Removes the GGUF quantisation settings: the weights are fp32 now, and transformers would refuse to save them."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def place_of(source: ModelSource) -> str:
    return str(source.folder or source.name_or_path)


def origin_of(source: ModelSource) -> dict[str, Any]:
    keywords: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if source.revision is not None:
        # For a folder, it is the revision of the code on the hub that the configuration names.
        keywords["revision" if source.folder is None else "code_revision"] = source.revision
    if source.gguf_file is not None:
        keywords["gguf_file"] = source.gguf_file
    return keywords
