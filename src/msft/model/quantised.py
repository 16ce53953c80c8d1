"""Bases whose linear layers are held in 4 or 8 bits, under an adapter that is trained (`model.quantize`, QLoRA).

bitsandbytes quantises the weights when they are read, always on the CPU. They are never changed: only the adapter is
trained, kept and handed over.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import get_hf_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from msft.core.errors import ModelError, complaint
from msft.forward.swap import swap
from msft.model.folder import ModelSource, Quantized
from msft.model.model_parts import base_of
from msft.model.precision import Precision

M = TypeVar("M", bound=nn.Module)
_WRAPPED = re.compile(r"\.(base_layer|original_module|modules_to_save\..*)$")
"""What an adapter adds to the name of a layer that it changes."""
_ADAPT = "add an adapter, such as peft: {r: 16}, or give the model that they were made from"
WHY = "linear layer with weights in 8 bits, each row multiplied by itself"
BLOCK, NESTED = 64, 256
"""Weights in 4 bits that share a scale, which is a byte, and scales that share one of their own."""
TABLES = 4 * (16 + 256 + 1)
"""Bytes of the tables of a layer in 4 bits: the values of a weight, those of a scale, and the mean of the scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The weights of a model that are held in 4 or 8 bits."""

    parameters: int = 0
    """How many numbers they stand for."""
    nbytes: int = 0
    """Their bytes, those of their scales included."""


def require(field: str, found: str) -> None:
    """Raises ModelError where bitsandbytes is not installed; `field` has the value `found`, which needs it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        found = f"{found} needs the library bitsandbytes, which is not installed"
        raise ModelError(complaint(found, "pip install 'msft[quantized]'", field=field))


def settings(kind: Quantized, whole: list[str]) -> BitsAndBytesConfig:
    """How transformers quantises a model that it reads. `whole`: see `kept_whole`."""
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True, llm_int8_skip_modules=whole
    )


def stored_as(config: Any) -> Quantized | str | None:
    """How the weights in a model's folder are quantised, by its configuration: by bitsandbytes, or the name of another
    method; None: they are not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    fields: Mapping[str, Any] = found if isinstance(found, Mapping) else found.to_dict()
    if fields.get("load_in_4bit"):
        return "fp4" if fields.get("bnb_4bit_quant_type") == "fp4" else "nf4"
    method = fields.get("quant_method", "an unknown method")
    return "int8" if fields.get("load_in_8bit") else str(getattr(method, "value", method))


def kind_of(source: ModelSource, config: Any) -> Quantized | None:
    """In which numbers a model's linear layers are held, by what is asked for and by its configuration.

    None: as floating-point numbers, or in a way that is not bitsandbytes'. Raises ModelError where the two differ.
    """
    stored, asked = stored_as(config), source.quantize
    if asked is not None and source.gguf_file is not None:
        found = "weights of a GGUF file are read as floating-point numbers, not quantised again"
        fix = "leave out model.quantize, or give the model's folder with safetensors"
        raise ModelError(complaint(found, fix, file=source.name_or_path, field="model.quantize"))
    if asked is not None and stored not in (None, asked):
        found = f"found {asked}, but the model's weights are stored in another way: {stored}"
        fix = "leave out model.quantize, or give the model that they were made from"
        raise ModelError(complaint(found, fix, file=source.name_or_path, field="model.quantize"))
    ours: dict[str, Quantized] = {"nf4": "nf4", "fp4": "fp4", "int8": "int8"}
    return asked or ours.get(stored or "")


def check_trained(source: ModelSource, kind: Quantized | None) -> None:
    """Raises ModelError for a quantised model without an adapter: its linear layers cannot be trained."""
    if kind is not None and source.peft is None:
        found = f"its linear layers are stored in {'8' if kind == 'int8' else '4'} bits, which cannot be trained"
        raise ModelError(complaint(found, _ADAPT, file=source.name_or_path, field="model.name_or_path"))


def check_unpacked(source: ModelSource, model: nn.Module, plain: nn.Module) -> None:
    """Raises ModelError where a model that another library quantised lacks trainable weights of the `plain` one, which
    may be without values: they are packed, and training would change only the others."""
    stored = stored_as(getattr(model, "config", None))
    if stored is None or source.peft is not None:
        return
    here = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    wanted = {name: weight for name, weight in plain.named_parameters() if weight.requires_grad}
    lacking = [name for name in wanted if name not in here or here[name].dtype.itemsize < 2]
    if lacking:
        listed = ", ".join(lacking[:2]) + (", ..." if len(lacking) > 2 else "")
        found = f"{len(lacking)} of its {len(wanted)} weights are packed ({stored}) and cannot be trained ({listed})"
        raise ModelError(complaint(found, _ADAPT, file=source.name_or_path, field="model.name_or_path"))


def as_stored(config: Any, model: M) -> M:
    """A model on the meta device, given with plain layers, with those of the library that quantised it. It stays plain
    where they are not known, as without that library: what is loaded is looked at again."""
    try:
        quantizer, _, _ = get_hf_quantizer(config, None, None, True, {})  # type: ignore[no-untyped-call]
        quantizer.preprocess_model(model)
    except Exception:  # of that library
        return model
    return model


def kept_whole(model: Any, modules_to_save: list[str] | None) -> list[str]:
    """What is not quantised, as transformers names it: the output head and what is tied to it, and the modules that are
    trained whole."""
    return sorted({*HfQuantizer.get_modules_to_not_convert(model), *(modules_to_save or ())})


def prepare(model: M) -> M:
    """Makes the quantised layers of a model that has been read compute each row by itself, with gradients, and nothing
    else; in fp32 (see `compute_in`)."""
    for layer in quantised_layers(model):
        layer.compute_dtype, layer.compute_type_is_set = torch.float32, True
        if hasattr(layer.weight, "quant_state"):
            # On some CPUs, scoring would repack the weights for good, and training then has no gradient through them.
            layer.support_avx512bf16_for_cpu = False
        else:
            layer.state.SCB = layer.weight.SCB  # for PEFT, which unpacks the weight for DoRA
            layer.register_buffer("scales", layer.weight.SCB, persistent=False)  # goes where the layer goes
            layer.weight.CB = None  # the weight again
            swap(layer, forward, WHY)
    return model


def unpacked(model: Any) -> Any:
    """The model with plain linear layers in fp32, for one whose weights are stored in 4 or 8 bits."""
    plain = model.dequantize(torch.float32)
    # Made anew: transformers would write the other one only as it was read.
    return type(plain).from_pretrained(None, config=plain.config, state_dict=plain.state_dict(), dtype=torch.float32)


def compute_in(model: nn.Module, precision: Precision) -> None:
    """Sets in which type quantised layers compute: that of the rest of the model."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    for layer in quantised_layers(model):
        layer.compute_dtype = dtype
        if hasattr(layer.weight, "quant_state"):
            layer.weight.quant_state.dtype = dtype  # of the weights that the backward pass unpacks


def quantised_layers(model: nn.Module) -> Iterator[Any]:
    """The layers of bitsandbytes, where a model has any."""
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes.") and isinstance(module, nn.Linear):
            yield module


def packed(model: nn.Module) -> Packed:
    """What a model that has been read holds in 4 or 8 bits."""
    count = total = 0
    for layer in quantised_layers(model):
        count += layer.in_features * layer.out_features
        state = getattr(layer.weight, "quant_state", None)
        total += layer.weight.nbytes + (layer.scales.nbytes if state is None else _bytes_of(state))
    return Packed(parameters=count, nbytes=total)


def _bytes_of(state: Any) -> int:
    """Bytes of the scales and tables of a weight in 4 bits."""
    scales: int = state.absmax.nbytes + state.code.nbytes
    return scales + (state.offset.nbytes + _bytes_of(state.state2) if state.nested else 0)


def will_be_packed(
    skeleton: PeftModel | nn.Module, kind: Quantized | None, modules_to_save: list[str] | None
) -> Packed:
    """What a model will hold in 4 or 8 bits once it is read, by its skeleton."""
    if kind is None:
        return Packed()
    base: Any = base_of(skeleton)
    skipped = [*kept_whole(base, modules_to_save), *(base._keep_in_fp32_modules or ())]
    count = total = 0
    for name, module in base.named_modules():
        plain = _WRAPPED.sub("", name)
        mine = type(module) is nn.Linear or isinstance(module, Conv1D)
        if mine and "lora_" not in name and should_convert_module(plain, skipped):
            size = module.weight.numel()
            count += size
            if kind == "int8":
                total += size + 4 * module.weight.shape[1 if isinstance(module, Conv1D) else 0]
            else:
                blocks = -(-size // BLOCK)
                total += -(-size // 2) + blocks + 4 * -(-blocks // NESTED) + TABLES
    return Packed(parameters=count, nbytes=total)


def forward(self: Any, states: Tensor) -> Tensor:
    """Replaces the forward of bitsandbytes' layer with weights in 8 bits.

    That one also rounds its inputs to 8 bits, by columns that it chooses over all rows of a micro-batch: what a row
    computes would depend on the rows beside it, and on a CPU training and scoring would differ.
    """
    given = states.to(self.compute_dtype)
    bias = None if self.bias is None else self.bias.to(given.dtype)
    product: Tensor = _Product.apply(given, self.weight.data, self.scales, bias)  # type: ignore[no-untyped-call]
    return product.to(states.dtype)


class _Product(torch.autograd.Function):
    """[..., out] from [..., in] states, [out, in] weights in 8 bits and their [out] scales; the weights are unpacked
    for the backward pass again, so that only one layer's are held at a time."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scales)
        return functional.linear(states, _unpacked(weight, scales, states.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, None, None, None]:
        weight, scales = ctx.saved_tensors
        return given @ _unpacked(weight, scales, given.dtype) if ctx.needs_input_grad[0] else None, None, None, None


def _unpacked(weight: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight * (scales.float() / 127)[:, None]).to(dtype)
