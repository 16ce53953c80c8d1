"""In which precision a model trains and is evaluated (design 3.5)."""

from __future__ import annotations

import copy
import re
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from msft.core.errors import ConfigError, complaint
from msft.model.hardware import hardware_has_bf16
from msft.model.model_parts import base_of

Precision: TypeAlias = Literal["mixed", "autocast", "fp32"]
"""`mixed`: the model's parameters are bf16 copies of fp32 masters; `autocast`: fp32 parameters, which matrix products
convert to bf16; `fp32`: fp32 throughout."""


def precision_on(device: torch.device, asked: Literal["auto"] | Precision) -> Precision:
    """The precision on this device. `auto`: the fastest that the hardware has. Raises ConfigError for `mixed` on a GPU
    without bf16."""
    if device.type == "cuda":
        return precision_of_gpu(asked, has_bf16=hardware_has_bf16(device))
    return asked if asked != "auto" else "autocast" if hardware_has_bf16(device) else "fp32"


def precision_of_gpu(asked: Literal["auto"] | Precision, *, has_bf16: bool) -> Precision:
    """The same on a GPU that does or does not have bf16."""
    if asked == "mixed" and not has_bf16:
        found = "a mixed model computes in bf16, which this GPU does not have"
        raise ConfigError(complaint(found, "leave it out, or set it to fp32", field="model.precision"))
    return asked if asked != "auto" else "mixed" if has_bf16 else "fp32"


def narrow(model: nn.Module, *, trained: bool = True) -> None:
    """Converts the model's parameters to bf16 in place, never its buffers (the frequencies of a rotary embedding lose
    whole positions in bf16), nor what the model keeps in fp32 where it is loaded in bf16. `trained`: those that
    are trained, too."""
    kept = kept_in_fp32(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not trained:
            continue
        if parameter.dtype == torch.float32 and not (kept and kept.search(name)):
            parameter.data = parameter.data.to(torch.bfloat16)


@torch.no_grad()
def narrow_buffers(model: Any) -> None:
    """Gives the buffers of a model the types that they have where transformers loads it in bf16: those of a model that
    is made with bf16 as the default type, in which `inv_freq` is fp32 as well."""
    base = base_of(model)
    with torch.device("meta"):
        like: Any = type(base)._from_config(  # type: ignore[no-untyped-call]
            copy.deepcopy(base.config), dtype=torch.bfloat16
        )
    types = {name: buffer.dtype for name, buffer in like.named_buffers()}
    for name, buffer in base.named_buffers():
        if buffer.dtype == torch.float32 and types.get(name) == torch.bfloat16:
            buffer.data = buffer.data.to(torch.bfloat16)


def kept_in_fp32(model: Any) -> re.Pattern[str] | None:
    """The names of the parameters that the model keeps in fp32 where it is loaded in bf16; None if there are none."""
    names = sorted({name for module in model.modules() for name in getattr(module, _STRICT, None) or ()})
    return re.compile("|".join(rf"(^|\.){re.escape(name)}($|\.)" for name in names)) if names else None


_STRICT = "_keep_in_fp32_modules_strict"
"""transformers: parts of a model that stay fp32 in bf16 too (`_keep_in_fp32_modules`: in fp16 only)."""
