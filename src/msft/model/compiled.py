"""torch.compile, if configured: layer by layer, so that one compilation serves all layers."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint

_FIELD = "training.torch_compile"


def compile_layers(model: PreTrainedModel | PeftModel, device: torch.device) -> None:
    """Compiles the model's layers in place, for any number of tokens. Raises ModelError where that is not possible."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        mend = "install g++, or leave it out"
        raise ModelError(complaint("compiling for a CPU needs a C++ compiler, and none was found", mend, field=_FIELD))
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    kinds = set(base._no_split_modules or ())
    layers = [module for module in base.modules() if type(module).__name__ in kinds]
    if not layers:
        found = f"{type(base).__name__} does not declare its layers"
        raise ModelError(complaint(found, "leave it out for this model", field=_FIELD))
    for layer in layers:
        layer.compile(dynamic=True)
